//! YAML and JSON text as a tree that nobody has judged yet. Pure.
//!
//! The tree keeps what a library's own value type throws away: fields that are given twice, and each scalar as it was
//! written, so that `tag: 1.10` stays `1.10` and `value: 0x1F` is not turned into `31`.
//! It never judges what a field means; `check` does that.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Longest specification, in bytes. A large one (hundreds of variables) has some tens of kilobytes; every node holds and passes
/// on every specification of the cluster, so it is no place for data.
pub const WRITTEN_LEN_MAX: usize = 1 << 20;

/// What a tree may grow to: one for each node and one for each byte of text. Without aliases a text of [`WRITTEN_LEN_MAX`] stays
/// below twice its length; with them a short text could ask for all the memory there is.
const TREE_SIZE_MAX: usize = 4 * WRITTEN_LEN_MAX;

/// Most that reading YAML may cost, in opening brackets times bytes. The YAML reader looks at every open bracket anew for each
/// word it reads, so that a text of a mebibyte could keep it busy for minutes; this much takes it three seconds at worst. It
/// still lets 200 KiB pass with two thousand brackets in them, as when a variable holds JSON. JSON itself has no such limit.
const YAML_COST_MAX: usize = 1 << 29;

/// One node of the tree.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Node {
    /// Nothing: the same as leaving the field out.
    Null,
    /// `true` or `false`.
    Flag(bool, AsWritten),
    /// A whole number; what is greater than `i128` can hold stands as its maximum, which no field takes.
    Whole(i128, AsWritten),
    /// A number with a fraction or an exponent.
    Fraction(f64, AsWritten),
    /// Text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Fields in the order written, each as often as it was given.
    Map(Fields),
}

/// The characters of a scalar that is not text, where the format still tells them.
pub(super) type AsWritten = Option<String>;

/// The fields of a map, in the order written.
pub(super) type Fields = Vec<(String, Node)>;

/// Why a text is no tree.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("the specification is {0} bytes long; at most {WRITTEN_LEN_MAX} are taken")]
    TooLong(usize),
    #[error("the specification is empty")]
    Empty,
    #[error("found several YAML documents (parted by `---`), wanted one specification")]
    SeveralDocuments,
    #[error("too many brackets for YAML of {0} bytes; write it as JSON, or without `[` and `{{`")]
    TooManyBrackets(usize),
    #[error("neither YAML nor JSON: {0}")]
    Syntax(String),
}

impl Node {
    /// Reads YAML, of which JSON is nearly a part.
    pub(super) fn read(text: &str) -> Result<Self, TreeError> {
        if text.len() > WRITTEN_LEN_MAX {
            return Err(TreeError::TooLong(text.len()));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::read_yaml(text).or_else(|yaml_error| {
            // What begins like JSON was most likely meant so: its reader has the better word on what is wrong with it.
            let meant_as_json =
                text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
            if meant_as_json { Self::read_json(text) } else { Err(yaml_error) }
        })
    }

    fn read_yaml(text: &str) -> Result<Self, TreeError> {
        let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
        if brackets.saturating_mul(text.len()) > YAML_COST_MAX {
            return Err(TreeError::TooManyBrackets(text.len()));
        }
        let mut documents = serde_norway::Deserializer::from_str(text);
        let Some(first) = documents.next() else { return Err(TreeError::Empty) };
        let mut tree = Seed { left: &Cell::new(TREE_SIZE_MAX) }.deserialize(first).map_err(|e| yaml_error(&e))?;
        if documents.next().is_some() {
            return Err(TreeError::SeveralDocuments);
        }
        if tree == Node::Null {
            return Err(TreeError::Empty);
        }
        let again = serde_norway::Deserializer::from_str(text);
        AsWrittenSeed(&mut tree).deserialize(again).map_err(|e| yaml_error(&e))?;
        Ok(tree)
    }

    /// Reads JSON alone: the stored form, and the few texts (surrogate pairs in escapes) that are JSON and no YAML.
    pub(super) fn read_json(text: &str) -> Result<Self, TreeError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let tree = Seed { left: &Cell::new(TREE_SIZE_MAX) }.deserialize(&mut reader);
        tree.and_then(|tree| reader.end().map(|()| tree)).map_err(|e| TreeError::Syntax(e.to_string()))
    }

    /// The text of a text, and of a number or flag as it was written.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            Node::Flag(_, written) | Node::Whole(_, written) | Node::Fraction(_, written) => written.as_deref(),
            Node::Null | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// What this is, for "found …".
    pub(super) fn described(&self) -> String {
        match self {
            Node::Null => "nothing".to_owned(),
            Node::Flag(flag, written) => {
                format!("`{}`", shortened(written.as_deref().unwrap_or(if *flag { "true" } else { "false" })))
            }
            Node::Whole(number, written) => {
                format!("`{}`", shortened(&written.clone().unwrap_or_else(|| number.to_string())))
            }
            Node::Fraction(number, written) => {
                format!("`{}`", shortened(&written.clone().unwrap_or_else(|| number.to_string())))
            }
            Node::Text(text) if text.is_empty() => "empty text".to_owned(),
            Node::Text(text) => format!("text `{}`", shortened(text)),
            Node::List(_) => "a list".to_owned(),
            Node::Map(_) => "a map".to_owned(),
        }
    }
}

/// The field `name` of `fields`, where it is given and not null. Of two, the first: the second is a mistake already told.
pub(super) fn field<'a>(fields: &'a [(String, Node)], name: &str) -> Option<&'a Node> {
    fields.iter().find(|(key, _)| key == name).map(|(_, node)| node).filter(|node| **node != Node::Null)
}

/// `text` as a message can quote it: on one line and not too long.
pub(super) fn shortened(text: &str) -> String {
    /// Long enough to recognise a value by, short enough for a line of a terminal.
    const QUOTED_LEN_MAX: usize = 40;
    let mut quoted: String = text.chars().take(QUOTED_LEN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_LEN_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

fn yaml_error(error: &serde_norway::Error) -> TreeError {
    TreeError::Syntax(error.to_string())
}

/// Builds a tree, as long as `left` lasts.
#[derive(Clone, Copy)]
struct Seed<'a> {
    left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn spend<E: de::Error>(self, size: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(size);
        self.left.set(left.ok_or_else(|| E::custom(format!("its aliases grow to more than {TREE_SIZE_MAX} bytes")))?);
        Ok(())
    }

    fn scalar<E: de::Error>(self, node: Node) -> Result<Node, E> {
        self.spend(1)?;
        Ok(node)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a list or a map")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.scalar(Node::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        // What a document without content is to the YAML reader.
        self.visit_unit()
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Node, E> {
        self.scalar(Node::Flag(flag, Some(flag.to_string())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        self.visit_i128(i128::from(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        self.visit_i128(i128::from(number))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Node, E> {
        self.scalar(Node::Whole(number, Some(number.to_string())))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Node, E> {
        let written = Some(number.to_string());
        self.scalar(Node::Whole(i128::try_from(number).unwrap_or(i128::MAX), written))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
        // How it was written cannot be told from the number (`1.10`): the second reading adds it.
        self.scalar(Node::Fraction(number, None))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.spend(1 + text.len())?;
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.spend(1)?;
        let mut list = Vec::new();
        while let Some(node) = access.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.spend(1)?;
        let mut fields = Fields::new();
        while let Some(key) = access.next_key_seed(self)? {
            let Some(name) = key.text() else {
                return Err(de::Error::custom(format!("found {} for the name of a field", key.described())));
            };
            fields.push((name.to_owned(), access.next_value_seed(self)?));
        }
        Ok(Node::Map(fields))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Node, A::Error> {
        let (tag, _) = access.variant::<String>()?;
        Err(de::Error::custom(format!("found the YAML tag `!{}`; a specification has none", shortened(&tag))))
    }
}

/// Reads the same text once more along a finished tree, and notes how each number and flag was written.
struct AsWrittenSeed<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for AsWrittenSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Node::Null | Node::Text(_) => IgnoredAny::deserialize(deserializer).map(drop),
            Node::Flag(_, written) | Node::Whole(_, written) | Node::Fraction(_, written) => {
                *written = Some(String::deserialize(deserializer)?);
                Ok(())
            }
            Node::List(_) => deserializer.deserialize_seq(self),
            Node::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for AsWrittenSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the first reading found")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Node::List(list) = self.0 else { return Err(de::Error::custom("found a list in the second reading only")) };
        for node in list {
            access.next_element_seed(AsWrittenSeed(node))?;
        }
        // The list has as many elements as before; asking for one more lets the reader step over its end.
        access.next_element::<IgnoredAny>().map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Node::Map(fields) = self.0 else { return Err(de::Error::custom("found a map in the second reading only")) };
        for (_, node) in fields {
            access.next_key::<IgnoredAny>()?;
            access.next_value_seed(AsWrittenSeed(node))?;
        }
        access.next_key::<IgnoredAny>().map(drop)
    }
}
