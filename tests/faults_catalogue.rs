//! The book's fault catalogue against the tests that there are: each line names a test that
//! exists, each test of a fault has a line, and no fault that has to be lived through is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The faults that have a test against the real git, engine, HAProxy and store.
const REQUIRED: [(&str, &[u32]); 8] = [
    ("M", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    ("G", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]),
    ("D", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
    ("H", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    ("K", &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("C", &[1, 2, 3, 4, 5]),
    ("T", &[1]),
    ("N", &[1, 2]),
];

/// Files below `tests` with tests of faults, beside `faults_*.rs` and those in `faults`.
const OTHERS: [&str; 1] = ["store.rs"];

/// The number that a test's name begins with, such as `G3`.
fn number_of(test: &str) -> Option<String> {
    let (start, _) = test.split_once('_')?;
    let (letter, digits) = start.split_at_checked(1)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_fault = letter.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_number && is_fault).then(|| start.to_uppercase())
}

/// The functions of a file that are tests.
fn tests_of(text: &str) -> Vec<String> {
    let (mut tests, mut is_test) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            is_test = false;
            tests.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    tests
}

/// The tests of faults, with their numbers.
fn tests() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let of_faults = entries(&folder).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("faults_") || OTHERS.contains(&&*name)
    });
    let mut tests = BTreeMap::new();
    for path in of_faults.chain(entries(&folder.join("faults"))) {
        for test in tests_of(&std::fs::read_to_string(&path).unwrap()) {
            if let Some(number) = number_of(&test) {
                tests.insert(test, number);
            }
        }
    }
    tests
}

/// A line of the page's tables.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    number: String,
    what_happens: String,
    test: String,
}

fn rows_of(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, what_happens, test] = cells[..] else { panic!("four cells: {line}") };
        if number == "number" || number == "---" {
            continue;
        }
        let test = test.trim_matches('`').to_owned();
        let (number, what_happens) = (number.to_owned(), what_happens.to_owned());
        rows.push(Row { number, what_happens, test });
    }
    rows
}

/// What is wrong with a page, in words.
fn findings(page: &str, tests: &BTreeMap<String, String>) -> Vec<String> {
    let rows = rows_of(page);
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for Row { number, what_happens, test } in &rows {
        match tests.get(test) {
            None => found.push(format!("{number}: there is no test {test}")),
            Some(of) if of != number => found.push(format!("{number}: {test} is a test of {of}")),
            Some(_) => {}
        }
        if what_happens.is_empty() {
            found.push(format!("{number}: it isn't said what happens"));
        }
        if !seen.insert(test) {
            found.push(format!("{number}: {test} is there twice"));
        }
    }
    let left = tests.iter().filter(|(test, _)| !seen.contains(test));
    found.extend(left.map(|(test, number)| format!("{number}: {test} has no line")));
    let numbers: BTreeSet<_> = rows.iter().map(|row| row.number.clone()).collect();
    let required = REQUIRED.iter().flat_map(|(letter, all)| all.iter().map(move |n| (letter, n)));
    let required = required.map(|(letter, n)| format!("{letter}{n}"));
    let missing = required.filter(|number| !numbers.contains(number));
    found.extend(missing.map(|number| format!("{number} has no line")));
    found
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/fault-catalogue.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_book_lists_the_faults_and_their_tests() {
    let found = findings(&page(), &tests());
    assert!(found.is_empty(), "{found:#?}");
}

/// A check that finds nothing would be content with every page.
#[test]
fn what_is_missing_or_wrong_in_the_list_is_found() {
    let (page, tests) = (page(), tests());
    let line = page.lines().find(|line| line.starts_with("| G3 ")).unwrap();
    let without = page.replace(line, "");
    let found = findings(&without, &tests);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("G3: g3_") && found[1] == "G3 has no line", "{found:?}");
    for (old, new, told) in [
        ("`g3_history", "`g3_other", "there is no test g3_other"),
        ("| G3 |", "| G5 |", "is a test of G3"),
        (line, &format!("{line}\n{line}"), "is there twice"),
    ] {
        let found = findings(&page.replacen(old, new, 1), &tests);
        assert!(found.iter().any(|finding| finding.contains(told)), "{told}: {found:?}");
    }
    let code =
        "#[test]\nfn g3_a() {}\n\nfn g4_no_test() {}\n\n#[tokio::test]\nasync fn m1_b() {}\n";
    assert_eq!(tests_of(code), ["g3_a", "m1_b"]);
    assert_eq!(number_of("m14_many"), Some("M14".to_owned()));
    for other in ["plan_is_empty", "a_daemon", "m_1", "reading_takes", "g"] {
        assert_eq!(number_of(other), None, "{other}");
    }
}
