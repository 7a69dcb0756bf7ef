use std::path::Path;

use super::*;

/// The table of docs/rotation.md is what the program says; `UPDATE_DOCS=1 cargo test -p relaykey-rotate the_table` writes it.
#[test]
fn the_table_of_the_documents_is_what_is_said() {
    let cell = |text: String| text.replace('|', "\\|");
    let mut table = "| refused with | for example | what to do |\n|---|---|---|\n".to_owned();
    for refusal in Refusal::one_of_each() {
        table += &format!("| `{}` | {} | {} |\n", refusal.class(), cell(refusal.words()), cell(refusal.fix()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rotation.md");
    let text = std::fs::read_to_string(&path).expect("docs/rotation.md");
    let (before, rest) = text.split_once("<!-- refusals -->\n").expect("where it begins");
    let (written, after) = rest.split_once("<!-- end -->").expect("where it ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}<!-- refusals -->\n{table}<!-- end -->{after}")).expect("written");
        return;
    }
    let differs = table.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(is, was)| is != was);
    assert!(written == table, "docs/rotation.md says otherwise (now, there): {differs:#?}");
}
