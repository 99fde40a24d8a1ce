//! A tree held against the table of fields: names, types, ranges, words. Pure.
//!
//! It tells every mistake that one field can have by itself; what must hold between fields is told by `written`.

use std::collections::BTreeSet;

use super::fields::{Absent, Field, NOT_YET, Shape, TextRule};
use super::mistake::{MISTAKES_MAX, Mistake};
use super::tree::{self, Fields, Node, shortened};

/// Tells all that is wrong with `given`, the fields of the map at `path` (empty: the specification itself).
pub(super) fn fields(table: &[Field], given: &Fields, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut seen = BTreeSet::new();
    for (name, node) in given {
        if mistakes.len() > MISTAKES_MAX {
            return;
        }
        let Some(row) = table.iter().find(|row| row.name == name) else {
            mistakes.push(Mistake::new(joined(path, &shortened(name)), unknown_field(table, name)));
            continue;
        };
        let path = joined(path, name);
        if !seen.insert(name) {
            mistakes.push(Mistake::new(path, "given twice"));
            continue;
        }
        field(row, node, &path, mistakes);
    }
    for row in table.iter().filter(|row| matches!(row.absent, Absent::Refused)) {
        if tree::field(given, row.name).is_none() {
            mistakes.push(Mistake::new(joined(path, row.name), "missing"));
        }
    }
}

/// `path.name`.
pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn field(row: &Field, node: &Node, path: &str, mistakes: &mut Vec<Mistake>) {
    if *node == Node::Null {
        return;
    }
    let before = mistakes.len();
    shape(&row.shape, node, path, mistakes);
    // A list or map with a mistake in it asks all the same; a word that means nothing does not.
    let understood = mistakes.len() == before
        || matches!(
            (&row.shape, node),
            (Shape::List(..), Node::List(_)) | (Shape::Map(_) | Shape::FlagOrMap(_), Node::Map(_))
        );
    if understood && !asks_nothing(row, node) && NOT_YET.contains(&without_positions(path).as_str()) {
        let what = match node {
            Node::Text(word) if matches!(row.shape, Shape::Choice(_)) => format!("`{word}` is "),
            _ => String::new(),
        };
        mistakes.push(Mistake::new(path, format!("{what}not carried out by this version of narun")));
    }
}

/// Whether the field, given this value, asks for the same as the field left out.
pub(super) fn asks_nothing(row: &Field, node: &Node) -> bool {
    match (&row.absent, node) {
        (_, Node::Null) => true,
        (Absent::Empty, Node::Text(text)) => text.is_empty(),
        (Absent::Empty, Node::List(list)) => list.is_empty(),
        (Absent::Empty, Node::Map(given)) => match &row.shape {
            Shape::Map(table) => given.iter().all(|(name, node)| {
                table.iter().find(|row| row.name == name).is_some_and(|row| asks_nothing(row, node))
            }),
            _ => given.is_empty(),
        },
        (Absent::Flag(absent), Node::Flag(flag, _)) => absent == flag,
        (Absent::Whole(absent), Node::Whole(number, _)) => i128::from(*absent) == *number,
        (Absent::Whole(absent), Node::Fraction(number, _)) => *absent as f64 == *number,
        (Absent::Word(words), node) => node.text().is_some_and(|text| words.contains(&text)),
        _ => false,
    }
}

fn shape(shape: &Shape, node: &Node, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut wrong = |message: String| mistakes.push(Mistake::new(path, message));
    match (shape, node) {
        (Shape::List(of, len_max), Node::List(list)) => {
            if list.len() > *len_max {
                wrong(format!("found {} entries, wanted at most {len_max}", list.len()));
            }
            for (position, node) in list.iter().take(*len_max).enumerate() {
                if mistakes.len() > MISTAKES_MAX {
                    return;
                }
                self::shape(of, node, &format!("{path}[{position}]"), mistakes);
            }
        }
        (Shape::Map(table) | Shape::FlagOrMap(table), Node::Map(given)) => fields(table, given, path, mistakes),
        (Shape::Labels, Node::Map(given)) => labels(given, path, mistakes),
        (Shape::Flag | Shape::FlagOrMap(_), Node::Flag(..)) => {}
        (Shape::Whole(min, max), _) => whole(*min, *max, node).unwrap_or_else(wrong),
        (Shape::Number(max), _) => number(*max, node).unwrap_or_else(wrong),
        (Shape::Text(rule), _) => text(rule, node).unwrap_or_else(wrong),
        (Shape::Choice(words), _) => choice(words, node).unwrap_or_else(wrong),
        (Shape::List(..) | Shape::Map(_) | Shape::Labels | Shape::Flag | Shape::FlagOrMap(_), _) => {
            wrong(mismatch(node, wanted(shape)));
        }
    }
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text(_) | Shape::Choice(_) => "text",
        Shape::Flag => "`true` or `false`",
        Shape::Whole(..) => "a whole number",
        Shape::Number(_) => "a number",
        Shape::List(..) => "a list",
        Shape::Map(_) | Shape::Labels => "a map",
        Shape::FlagOrMap(_) => "`true`, `false` or a map",
    }
}

fn mismatch(node: &Node, wanted: &str) -> String {
    let hint = match node {
        Node::Text(text) if looks_like(text, wanted) => " (leave out the quotes)",
        _ => "",
    };
    format!("found {}, wanted {wanted}{hint}", node.described())
}

/// Whether a quoted text would be what is wanted without its quotes.
fn looks_like(text: &str, wanted: &str) -> bool {
    match wanted {
        "a whole number" => text.parse::<i64>().is_ok(),
        "a number" => text.parse::<f64>().is_ok(),
        "`true` or `false`" => matches!(text, "true" | "false"),
        _ => false,
    }
}

fn whole(min: u64, max: u64, node: &Node) -> Result<(), String> {
    let Node::Whole(number, _) = node else { return Err(mismatch(node, wanted(&Shape::Whole(min, max)))) };
    if *number < i128::from(min) {
        return Err(format!("found {}, wanted a whole number of at least {min}", node.described()));
    }
    if *number > i128::from(max) {
        return Err(format!("found {}, wanted a whole number of at most {max}", node.described()));
    }
    Ok(())
}

fn number(max: f64, node: &Node) -> Result<(), String> {
    let number = match node {
        Node::Whole(number, _) => *number as f64,
        Node::Fraction(number, _) => *number,
        _ => return Err(mismatch(node, "a number")),
    };
    // Written so that what is no number at all (`.nan`) is refused too.
    if (0.0..=max).contains(&number) {
        return Ok(());
    }
    Err(format!("found {}, wanted a number from 0 to {max}", node.described()))
}

fn text(rule: &TextRule, node: &Node) -> Result<(), String> {
    let Some(text) = node.text() else {
        let hint = if matches!(node, Node::Fraction(..)) { " (put it in quotes)" } else { "" };
        return Err(format!("found {}, wanted text{hint}", node.described()));
    };
    if text.contains('\0') {
        return Err("holds a NUL character, which no program can be given".to_owned());
    }
    if text.len() > rule.len_max {
        return Err(format!("`{}` is {} bytes long, wanted at most {}", shortened(text), text.len(), rule.len_max));
    }
    (rule.check)(text)
}

fn choice(words: &[&str], node: &Node) -> Result<(), String> {
    match node.text() {
        Some(text) if words.contains(&text) => Ok(()),
        _ => Err(format!("found {}, wanted {}", node.described(), alternatives(words))),
    }
}

/// "`a`, `b` or `c`".
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [all @ .., last] => format!("`{}` or `{last}`", all.join("`, `")),
    }
}

fn labels(given: &Fields, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut seen = BTreeSet::new();
    for (name, node) in given {
        if mistakes.len() > MISTAKES_MAX {
            return;
        }
        let path = joined(path, &shortened(name));
        if !seen.insert(name) {
            mistakes.push(Mistake::new(path, "given twice"));
        } else if let Err(message) = super::words::label_key(name).and_then(|()| text(&super::words::LABEL, node)) {
            mistakes.push(Mistake::new(path, message));
        }
    }
}

fn unknown_field(table: &[Field], name: &str) -> String {
    if name == "<<" {
        return "YAML merge keys are not taken; write the fields out".to_owned();
    }
    match suggestion(table, name) {
        Some(known) => format!("unknown field; did you mean `{known}`?"),
        None => "unknown field".to_owned(),
    }
}

/// The field whose name is nearest to `name`, if one is near: without regard to case, dashes and underscores, then by typing errors.
fn suggestion(table: &[Field], name: &str) -> Option<&'static str> {
    /// Longer than twice any field's name, a text means none of them; comparing it would only cost time.
    const MEANT_LEN_MAX: usize = 64;
    if name.len() > MEANT_LEN_MAX {
        return None;
    }
    let plain =
        |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase() };
    let meant = plain(name);
    // One error in three letters is still recognised; more would suggest anything for anything.
    let near = |row: &&Field| strsim::osa_distance(&plain(row.name), &meant);
    let best = table.iter().min_by_key(near)?;
    (near(&best) <= meant.len() / 3).then_some(best.name)
}

/// `env[2].name` as the table's lists name it: `env[].name`.
fn without_positions(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            match c {
                '[' => {
                    inside = true;
                    return true;
                }
                ']' => inside = false,
                _ => {}
            }
            !inside
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fields::FIELDS;

    #[test]
    fn positions_are_left_out_of_paths() {
        assert_eq!(without_positions("env[12].valueFromSecret"), "env[].valueFromSecret");
        assert_eq!(without_positions("name"), "name");
    }

    #[test]
    fn every_field_refused_by_name_stands_in_the_table() {
        for path in NOT_YET {
            let mut table = FIELDS;
            for part in path.split('.') {
                let row = table.iter().find(|row| row.name == part.trim_end_matches("[]"));
                let row = row.unwrap_or_else(|| panic!("`{path}` is not in the table"));
                if let Shape::List(Shape::Map(inner), _) | Shape::Map(inner) = &row.shape {
                    table = inner;
                }
            }
        }
    }

    #[test]
    fn misspelt_fields_get_a_suggestion() {
        for (misspelt, meant) in [
            ("CPUCores", Some("cpuCores")),
            ("cpucores", Some("cpuCores")),
            ("job_max_retries", Some("jobMaxRetries")),
            ("job-timeout-seconds", Some("jobTimeoutSeconds")),
            ("replcias", Some("replicas")),
            ("cronSchedul", Some("cronSchedule")),
            ("Name", Some("name")),
            ("volumes", None),
            ("x", None),
        ] {
            assert_eq!(suggestion(FIELDS, misspelt), meant, "{misspelt}");
        }
    }
}
