use super::{parsed, refused};
use crate::spec::WRITTEN_LEN_MAX;

#[test]
fn what_is_no_map_of_fields_is_refused_whole() {
    for (text, reason) in [
        ("", "the specification is empty"),
        ("   \n\n", "the specification is empty"),
        ("# a comment only\n", "the specification is empty"),
        ("---\n", "the specification is empty"),
        ("~", "the specification is empty"),
        ("null", "the specification is empty"),
        ("- name: web", "found a list, wanted a map of fields, such as `name: web`"),
        ("hello", "found text `hello`, wanted a map"),
        ("3", "found `3`, wanted a map"),
        ("name: web\n---\nname: db\n", "several YAML documents"),
        ("name: [web\n", "neither YAML nor JSON"),
        ("name: web\n tag: v1\n", "at line 2 column"),
        ("{\"name\": \"web\" \"tag\": \"v1\"}", "at line 1 column"),
        ("{name: web, tag: [}", "at line 1 column 19"),
        ("name: *unknown", "unknown anchor at line 1 column 7"),
        ("name: !secret web\ntag: v1", "found the YAML tag `!secret`"),
        ("? [a, b]\n: c", "found a list for the name of a field"),
        ("~: c", "found nothing for the name of a field"),
        ("name: \u{1}", "control characters are not allowed"),
        ("name: web\ntag: v1\n\ttab: x", "at line 3 column 1"),
    ] {
        let mistakes = refused(text).to_string();
        assert!(mistakes.contains(reason), "{text:?}: {mistakes}");
        assert!(!mistakes.contains('\n'), "{text:?}: {mistakes}");
    }
}

#[test]
fn a_text_cannot_cost_more_than_its_size() {
    let long = format!("name: web\ntag: v1\n#{}", "x".repeat(WRITTEN_LEN_MAX));
    assert!(refused(&long).to_string().starts_with("the specification is 10485"), "{}", refused(&long));

    // Ten aliases to ten aliases, and so on: ten to the ninth in a few hundred bytes.
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let reason = refused(&laughs).to_string();
    assert!(reason.contains("aliases grow to more than") || reason.contains("repetition limit"), "{reason}");

    let repeated = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), vec!["*a"; 200].join(", "));
    assert!(refused(&repeated).to_string().contains("aliases grow to more than"));

    for (open, reason) in [
        ("[", "too many brackets for YAML"),
        ("{a: ", "too many brackets for YAML"),
        ("a: [", "too many brackets for YAML"),
        ("{\"a\": ", "recursion limit exceeded"),
        ("- ", "recursion limit exceeded"),
        ("? ", "recursion limit exceeded"),
    ] {
        let deep = open.repeat(WRITTEN_LEN_MAX / open.len());
        assert!(refused(&deep).to_string().contains(reason), "{open}: {}", refused(&deep));
    }
}

/// A variable may hold JSON full of brackets, and JSON itself may have any number of them.
#[test]
fn brackets_in_good_measure_are_no_harm() {
    let value = "[{}]".repeat(1_000);
    parsed(&format!("name: web\ntag: v1\nenv: [{{name: A, value: '{value}'}}]"));
    let many = "[{}]".repeat(32_000);
    parsed(&format!(r#"{{"name": "web", "tag": "v1", "env": [{{"name": "A", "value": "{many}"}}]}}"#));
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let unknown: String = (0..50_000).map(|n| format!("x{n}: 1\n")).collect();
    let twice = "tag: v1\n".repeat(50_000);
    let labels: String = (0..50_000).map(|n| format!("x{n}: '#', ")).collect();
    let long = format!("{}: 1\n", "tag".repeat(200_000));
    for text in [&unknown, &format!("{unknown}{twice}"), &long, &format!("constraints: {{labels: {{{labels}}}}}")] {
        let mistakes = refused(text);
        assert!(mistakes.iter().count() <= 101, "{}", mistakes.iter().count());
    }
    assert!(refused(&unknown).to_string().ends_with("\nthere are more; the first 100 are told"));
}
