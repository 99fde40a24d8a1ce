//! A case of the corpus, read from its head.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use narun::confinement::Confinement;
use narun::spec::ServiceSpec;

/// One case.
pub(super) struct Case {
    /// The file's name.
    pub(super) name: String,
    /// The mechanism that is to refuse it.
    pub(super) refused_by: String,
    /// What the kernel must have for that.
    pub(super) needs: Need,
    /// Fields of the specification, as YAML.
    spec: String,
    /// Who runs it; none: everybody.
    only: Option<As>,
    /// Who gets it done outside of narun.
    pub(super) control: Control,
}

/// As whom a case is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum As {
    Root,
    User,
}

impl fmt::Display for As {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::User => "an ordinary user",
        })
    }
}

/// What a mechanism needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    Nothing,
    Landlock(u32),
    Controller(&'static str),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Landlock(abi) => write!(f, "version {abi} of Landlock's interface"),
            Self::Controller(name) => write!(f, "the controller {name}"),
        }
    }
}

/// Who gets a case done without any sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Control {
    Anybody,
    Root,
    Nobody,
}

/// What came of a case.
pub(super) enum Outcome {
    Held,
    NotHere(String),
    Out(String),
    Broken(String),
}

/// Where the cases are.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes")
}

impl Case {
    /// All of them, by name.
    pub(super) fn all() -> Vec<Self> {
        let mut cases: Vec<Self> = fs::read_dir(folder())
            .expect("the folder of the cases")
            .map(|entry| entry.expect("an entry of the folder").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .map(|path| Self::read(&path))
            .collect();
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        cases
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a readable case");
        let head = text.split("*/").next().unwrap_or_default();
        let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!(" * {name}: ")));
        let needed = |name: &str| line(name).unwrap_or_else(|| panic!("{} does not say `{name}`", path.display()));
        let unknown = |word: &str| -> ! { panic!("{} says `{word}`", path.display()) };
        Self {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            refused_by: needed("refused-by").to_owned(),
            needs: match needed("needs") {
                "any" => Need::Nothing,
                "pids" => Need::Controller("pids"),
                "memory" => Need::Controller("memory"),
                "cpu" => Need::Controller("cpu"),
                word => match word.strip_prefix("landlock ").and_then(|abi| abi.parse().ok()) {
                    Some(abi) => Need::Landlock(abi),
                    None => unknown(word),
                },
            },
            spec: needed("spec").to_owned(),
            only: match line("as") {
                None => None,
                Some("root") => Some(As::Root),
                Some("user") => Some(As::User),
                Some(word) => unknown(word),
            },
            control: match line("control") {
                None => Control::Anybody,
                Some("root") => Control::Root,
                Some(word) if word.starts_with("none, ") => Control::Nobody,
                Some(word) => unknown(word),
            },
        }
    }

    /// Whether it is to be run as this user.
    pub(super) fn is_for(&self, who: As) -> bool {
        self.only.is_none_or(|only| only == who)
    }

    /// What its head asks for, read by the code that reads specifications.
    pub(super) fn confinement(&self, outside: &Path) -> Confinement {
        let fields = self.spec.replace("$OUTSIDE", &outside.display().to_string());
        let mut spec: serde_norway::Mapping = serde_norway::from_str(&fields)
            .unwrap_or_else(|error| panic!("{} has a `spec` that is no map: {error}", self.name));
        for (field, value) in [("name", "case"), ("tag", "v1")] {
            spec.insert(field.into(), value.into());
        }
        let text = serde_norway::to_string(&spec).expect("a map can be written");
        match ServiceSpec::parse(&text) {
            Ok(spec) => spec.confinement,
            Err(mistakes) => panic!("{} has a wrong `spec`: {mistakes}", self.name),
        }
    }
}
