//! The table of fields as a JSON schema, for editors. Pure.
//!
//! It says what a schema can say: names, types, ranges, words. What must hold between fields is told by the checks alone.

use serde_json::{Map, Value, json};

use super::fields::{Absent, FIELDS, Field, NOT_YET, Shape};
use super::tree::WRITTEN_LEN_MAX;

/// The JSON schema (draft 2020-12) of the specification. narun takes a little more than it says: a field that is null counts as
/// left out.
pub fn json_schema() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("narun specification"));
    let limit = format!("A service or cron spec, at most {WRITTEN_LEN_MAX} bytes of YAML or JSON.");
    schema.insert("description".to_owned(), json!(limit));
    schema.extend(map(FIELDS, ""));
    Value::Object(schema)
}

fn map(table: &[Field], path: &str) -> Map<String, Value> {
    let properties: Map<String, Value> =
        table.iter().map(|row| (row.name.to_owned(), field(row, &super::check::joined(path, row.name)))).collect();
    let required = table.iter().filter(|row| matches!(row.absent, Absent::Refused)).map(|row| json!(row.name));
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), required.collect());
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

fn field(row: &Field, path: &str) -> Value {
    let later = if NOT_YET.contains(&path) { " (not carried out yet)" } else { "" };
    let mut schema = Map::new();
    schema.insert("description".to_owned(), json!(format!("{}{later}", row.purpose)));
    schema.extend(shape(&row.shape, path));
    let default = match &row.absent {
        Absent::Refused | Absent::Unlike | Absent::Empty => None,
        Absent::Flag(flag) => Some(json!(flag)),
        Absent::Whole(number) => Some(json!(number)),
        Absent::Word(words) => words.first().map(|word| json!(word)),
    };
    schema.extend(default.map(|default| ("default".to_owned(), default)));
    Value::Object(schema)
}

fn shape(shape: &Shape, path: &str) -> Map<String, Value> {
    let schema = match shape {
        Shape::Text(rule) => {
            // Numbers and flags are taken as they are written: `tag: 1.10`.
            let mut text = json!({ "type": ["string", "number", "boolean"], "maxLength": rule.len_max });
            if let (Some(pattern), Some(text)) = (rule.pattern, text.as_object_mut()) {
                text.insert("pattern".to_owned(), json!(pattern));
            }
            text
        }
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number(max) => json!({ "type": "number", "minimum": 0, "maximum": max }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::List(of, len_max) => {
            json!({ "type": "array", "maxItems": len_max, "items": self::shape(of, &format!("{path}[]")) })
        }
        Shape::Map(table) => return map(table, path),
        Shape::Labels => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
        }
        Shape::FlagOrMap(table) => json!({ "anyOf": [{ "type": "boolean" }, map(table, path)] }),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}
