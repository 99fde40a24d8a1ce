//! Rules for the texts in a specification: each says what is wrong with a word. Pure.

use std::net::Ipv4Addr;

use super::execution::SIGNALS;
use super::fields::{STRING_LEN_MAX, TAG_LEN_MAX, TextRule};
use super::schedule::{EXPRESSION_LEN_MAX, Zone};
use super::tree::shortened;
use crate::confinement::Capabilities;
use crate::ids::{NodeName, RESERVED_NODE_NAMES, ServiceName};

/// What stands for every capability.
pub(super) const ALL_CAPABILITIES: &str = "all";

/// Longest path, PATH_MAX of Linux without its closing NUL.
const PATH_LEN_MAX: usize = 4_095;

/// Longest label, user name and the like: what a DNS name holds, and a file name.
const LABEL_LEN_MAX: usize = 253;

const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$";

const fn rule(len_max: usize, pattern: Option<&'static str>, check: fn(&str) -> Result<(), String>) -> TextRule {
    TextRule { len_max, pattern, check }
}

/// Any text.
pub(super) const TEXT: TextRule = rule(STRING_LEN_MAX, None, |_| Ok(()));
/// The name of a service. Its length is judged with its characters, in the words of `ids`.
pub(super) const SERVICE: TextRule =
    rule(STRING_LEN_MAX, Some(NAME_PATTERN), |text| ServiceName::new(text).map(drop).map_err(|e| e.to_string()));
/// The name of a node, or a word for a set of nodes.
pub(super) const NODE: TextRule = rule(STRING_LEN_MAX, Some(NAME_PATTERN), node);
/// A version label.
pub(super) const TAG: TextRule = rule(TAG_LEN_MAX, Some("^[A-Za-z0-9._+-]+$"), tag);
/// The name of an environment variable.
pub(super) const VARIABLE: TextRule = rule(STRING_LEN_MAX, Some("^[^\\s=]+$"), variable);
/// A key or value that labels something.
pub(super) const LABEL: TextRule = rule(LABEL_LEN_MAX, Some("^[A-Za-z0-9._/-]*$"), label);
/// A user of the system.
pub(super) const USER: TextRule = rule(LABEL_LEN_MAX, Some("^[^\\s:/]*$"), user);
/// A capability of Linux, or `all`.
pub(super) const CAPABILITY: TextRule = rule(LABEL_LEN_MAX, Some("^(CAP_)?[A-Z_]+$|^all$"), capability);
/// A control group, by its path from the hierarchy's root; empty, as not given.
pub(super) const GROUP: TextRule = rule(PATH_LEN_MAX, None, group);
/// Any path.
pub(super) const PATH: TextRule = rule(PATH_LEN_MAX, Some("^.+$"), not_empty);
/// A path from the root.
pub(super) const ABSOLUTE: TextRule = rule(PATH_LEN_MAX, Some("^(/.*)?$"), absolute);
/// A path that stays under a directory.
pub(super) const INSIDE: TextRule = rule(PATH_LEN_MAX, Some("^[^/].*$"), inside);
/// The name of a shared file.
pub(super) const FILE: TextRule = rule(LABEL_LEN_MAX, Some("^[^/]+$"), file);
/// Landlock access: some of `rwxc`.
pub(super) const LANDLOCK_MODES: TextRule = rule(4, Some("^[rwxc]+$"), landlock_modes);
/// An operating system and a processor.
pub(super) const PLATFORM: TextRule = rule(LABEL_LEN_MAX, Some("^([a-z0-9]+/[a-z0-9]+)?$"), platform);
/// An operating system or a processor.
pub(super) const PLATFORM_WORD: TextRule = rule(LABEL_LEN_MAX, Some("^[a-z0-9]*$"), platform_word);
/// An IPv4 address.
pub(super) const IP4: TextRule = rule(LABEL_LEN_MAX, None, ip4);
/// `HOST:PORT`.
pub(super) const ADDRESS: TextRule = rule(LABEL_LEN_MAX, Some("^.*:[0-9]+$"), address);
/// The name of a signal.
pub(super) const SIGNAL: TextRule = rule(LABEL_LEN_MAX, None, signal);
/// A time zone.
pub(super) const TIMEZONE: TextRule = rule(LABEL_LEN_MAX, None, timezone);
/// A cron expression; empty, as not given.
pub(super) const SCHEDULE: TextRule = rule(EXPRESSION_LEN_MAX, None, schedule);

fn not_empty(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

fn only(text: &str, allowed: impl Fn(char) -> bool, made_of: &str) -> Result<(), String> {
    match text.chars().find(|c| !allowed(*c)) {
        Some(bad) => Err(format!("`{}` holds `{}`; it is made of {made_of}", shortened(text), bad.escape_debug())),
        None => Ok(()),
    }
}

fn node(text: &str) -> Result<(), String> {
    if RESERVED_NODE_NAMES.contains(&text) {
        return Ok(());
    }
    NodeName::new(text).map(drop).map_err(|e| e.to_string())
}

fn tag(text: &str) -> Result<(), String> {
    not_empty(text)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    only(text, allowed, "the letters a-z and A-Z, digits, `.`, `_`, `+` and `-`")
}

fn variable(text: &str) -> Result<(), String> {
    not_empty(text)?;
    if text.starts_with("NARUN_") {
        return Err(format!(
            "`{}` is reserved: narun itself sets the variables that begin with `NARUN_`",
            shortened(text)
        ));
    }
    only(text, |c| c != '=' && !c.is_whitespace(), "anything but spaces and `=`")
}

fn label(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    only(text, allowed, "the letters a-z and A-Z, digits, `.`, `_`, `/` and `-`")
}

/// Checks a key that labels a node: a label that says something.
pub(super) fn label_key(text: &str) -> Result<(), String> {
    not_empty(text)?;
    label_value(text)
}

/// Checks the value of a label.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > LABEL_LEN_MAX {
        return Err(format!("`{}` is {} bytes long, wanted at most {LABEL_LEN_MAX}", shortened(text), text.len()));
    }
    label(text)
}

fn user(text: &str) -> Result<(), String> {
    only(text, |c| !c.is_whitespace() && c != ':' && c != '/', "anything but spaces, `:` and `/`")
}

fn capability(text: &str) -> Result<(), String> {
    if text == ALL_CAPABILITIES || Capabilities::named(text).is_some() {
        return Ok(());
    }
    let known = Capabilities::NAMES.map(|name| (strsim::jaro_winkler(name, &text.to_uppercase()), name));
    let nearest = known.into_iter().max_by(|one, other| one.0.total_cmp(&other.0)).map_or("", |(_, name)| name);
    Err(format!("`{}` is no capability; did you mean `{nearest}`? `all` keeps every one", shortened(text)))
}

/// No part may lead up: what is made there is also removed there.
fn group(text: &str) -> Result<(), String> {
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!("`{}` holds `.` or `..`; wanted the path of a group from the root", shortened(text)));
    }
    Ok(())
}

fn absolute(text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(());
    }
    Err(format!("`{}` does not begin with `/`", shortened(text)))
}

fn inside(text: &str) -> Result<(), String> {
    not_empty(text)?;
    let mut depth = 0_i32;
    for part in text.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            break;
        }
    }
    if text.starts_with('/') || depth < 0 {
        return Err(format!("`{}` leaves the working directory; wanted a path under it", shortened(text)));
    }
    if depth == 0 {
        return Err(format!("`{}` is the working directory itself; wanted a file under it", shortened(text)));
    }
    Ok(())
}

fn file(text: &str) -> Result<(), String> {
    not_empty(text)?;
    only(text, |c| c != '/', "anything but `/`")
}

fn landlock_modes(text: &str) -> Result<(), String> {
    not_empty(text)?;
    only(text, |c| matches!(c, 'r' | 'w' | 'x' | 'c'), "`r`, `w`, `x` and `c`")?;
    let twice = text.chars().enumerate().find(|(at, c)| text.chars().take(*at).any(|before| before == *c));
    match twice {
        Some((_, c)) => Err(format!("`{text}` holds `{c}` twice")),
        None => Ok(()),
    }
}

fn platform(text: &str) -> Result<(), String> {
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    match text.split_once('/') {
        Some((os, arch)) if word(os) && word(arch) => Ok(()),
        None if text.is_empty() => Ok(()),
        _ => Err(format!("`{}` is no platform; one is written as `linux/amd64`", shortened(text))),
    }
}

fn platform_word(text: &str) -> Result<(), String> {
    only(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), "the letters a-z and digits")
}

fn ip4(text: &str) -> Result<(), String> {
    text.parse::<Ipv4Addr>().map(drop).map_err(|_| format!("`{}` is no IPv4 address", shortened(text)))
}

fn address(text: &str) -> Result<(), String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(()),
        _ => Err(format!("`{}` is no address; one is written as `HOST:PORT`", shortened(text))),
    }
}

fn signal(text: &str) -> Result<(), String> {
    let names = SIGNALS.map(|(name, _)| name);
    if names.contains(&text.strip_prefix("SIG").unwrap_or(text)) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no signal that stops a program; wanted one of `SIG{}`",
        shortened(text),
        names.join("`, `SIG")
    ))
}

fn timezone(text: &str) -> Result<(), String> {
    Zone::parse(text).map(drop).map_err(|e| e.to_string())
}

fn schedule(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    super::schedule::check(text).map_err(|e| e.to_string())
}
