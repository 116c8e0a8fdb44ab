//! The reference page.
pub fn reference_markdown() -> String {
    String::new()
}
