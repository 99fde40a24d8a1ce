//! Tables for people. Pure.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// A table without borders: headings, then rows, columns two spaces apart, nothing at the ends of lines.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(headings);
    for row in rows {
        // An empty cell cannot be seen, and counts for nothing in `awk`.
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_headings() {
        let rows = [["web".into(), "3".into()], ["a-longer-name".into(), String::new()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME           N\nweb            3\na-longer-name  -\n");
        assert_eq!(table(["NAME", "N"], []), "NAME  N\n");
    }
}
