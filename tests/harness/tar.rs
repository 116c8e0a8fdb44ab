//! Writing tar archives (POSIX ustar, with GNU long names where a path needs one), always the
//! same bytes for the same content.

/// What one entry of an archive is.
pub enum Entry<'a> {
    File(&'a [u8]),
    Folder,
    Link(&'a str),
}

/// An archive that is being written.
#[derive(Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    const BLOCK: usize = 512;

    /// Adds an entry that belongs to `owner`, as user and as group.
    pub fn add(&mut self, path: &str, entry: &Entry<'_>, mode: u32, owner: u32) {
        if path.len() > 100 {
            let name = format!("{path}\0");
            self.header("././@LongLink", b'L', name.len(), 0, 0, "");
            self.content(name.as_bytes());
        }
        let short = &path[..path.len().min(100)];
        match entry {
            Entry::File(bytes) => {
                self.header(short, b'0', bytes.len(), mode, owner, "");
                self.content(bytes);
            }
            Entry::Folder => self.header(short, b'5', 0, mode, owner, ""),
            Entry::Link(target) => self.header(short, b'2', 0, mode, owner, target),
        }
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * Self::BLOCK, 0);
        self.0
    }

    fn header(&mut self, path: &str, kind: u8, size: usize, mode: u32, owner: u32, link: &str) {
        let mut block = [0_u8; Self::BLOCK];
        let mut put = |offset: usize, text: &str| {
            block[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, &format!("{owner:07o}"));
        put(116, &format!("{owner:07o}"));
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\u{0}00");
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }

    fn content(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(Self::BLOCK), 0);
    }
}
