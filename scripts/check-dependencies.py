#!/usr/bin/env python3
"""Holds the dependencies against deny.toml: licences, banned crates, sources.

It reads the same file as `cargo deny` and comes to the same verdict for the parts that we use, with nothing but cargo and
Python's standard library: CI need not build cargo-deny first. Only what is built for the targets of `[graph]` counts.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The keys that this script understands. Anything else in deny.toml would be a rule that nobody checks.
KNOWN = {
    "graph": {"targets", "all-features"},
    "licenses": {"allow", "confidence-threshold", "private"},
    "bans": {"multiple-versions", "wildcards", "deny"},
    "sources": {"unknown-registry", "unknown-git", "allow-registry", "allow-git"},
}


def cargo(*words):
    return subprocess.run(["cargo", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def built_packages(targets):
    """All packages that are built for any of `targets`. `cargo metadata` knows the licences; it also lists crates that a
    dependency only might ask for. `cargo tree` knows which are really built."""
    built = set()
    for target in targets:
        tree = cargo("tree", "--locked", "--target", target, "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}")
        # A line is `name vVERSION (where from)`.
        built |= {(words[0], words[1].lstrip("v")) for words in map(str.split, tree.splitlines()) if len(words) > 1}
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked"))
    return [package for package in metadata["packages"] if (package["name"], package["version"]) in built]


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be satisfied by allowed licences. Raises ValueError where it is no expression."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        verdict = both()
        while words and words[0] == "OR":
            words.pop(0)
            right = both()
            verdict = verdict or right
        return verdict

    def both():
        verdict = one()
        while words and words[0] == "AND":
            words.pop(0)
            right = one()
            verdict = verdict and right
        return verdict

    def one():
        if not words or words[0] in (")", "AND", "OR", "WITH"):
            raise ValueError(expression)
        word = words.pop(0)
        if word == "(":
            verdict = either()
            if not words or words.pop(0) != ")":
                raise ValueError(expression)
            return verdict
        if words[:1] == ["WITH"]:
            if len(words) < 2:
                raise ValueError(expression)
            word = f"{word} WITH {words[1]}"
            del words[:2]
        return word in allowed

    verdict = either()
    if words:
        raise ValueError(expression)
    return verdict


def licence_faults(packages, rules):
    allowed = set(rules["allow"])
    for package in packages:
        name = f"`{package['name']}` {package['version']}"
        expression = package.get("license")
        if not expression:
            yield f"{name} names no licence"
            continue
        try:
            if not is_allowed(expression, allowed):
                yield f"{name} has the licence `{expression}`, which [licenses] does not allow"
        except ValueError:
            yield f"{name} has the licence `{expression}`, which is no SPDX expression"


def ban_faults(packages, rules):
    banned = {rule["crate"]: rule.get("reason", "no reason given") for rule in rules["deny"]}
    for package in packages:
        if package["name"] in banned:
            yield f"`{package['name']}` {package['version']} is banned: {banned[package['name']]}"
        if package["source"] is None and rules["wildcards"] == "deny":
            for dependency in package["dependencies"]:
                if dependency["req"] == "*":
                    yield f"`{package['name']}` takes any version of `{dependency['name']}`; name one"


def source_faults(packages, rules):
    # Cargo writes `registry+` or `git+` before the address.
    allowed = {f"registry+{url}" for url in rules["allow-registry"]} | {f"git+{url}" for url in rules["allow-git"]}
    for package in packages:
        source = package["source"]
        if source is not None and source.split("?")[0].split("#")[0] not in allowed:
            yield f"`{package['name']}` {package['version']} comes from {source}, which [sources] does not allow"


def unknown_rules(rules):
    for section, keys in rules.items():
        if section not in KNOWN:
            yield f"deny.toml: this script does not know [{section}]"
            continue
        for key in keys.keys() - KNOWN[section]:
            yield f"deny.toml: this script does not know `{key}` of [{section}]"


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    faults = list(unknown_rules(rules))
    packages = built_packages(rules["graph"]["targets"])
    faults += licence_faults(packages, rules["licenses"])
    faults += ban_faults(packages, rules["bans"])
    faults += source_faults(packages, rules["sources"])
    for fault in faults:
        print(f"check-dependencies: {fault}", file=sys.stderr)
    if faults:
        return 1
    print(f"check-dependencies: {len(packages)} packages, licences, bans and sources are in order")
    print("check-dependencies: advisories were not checked: their database cannot be reached from CI")
    return 0


if __name__ == "__main__":
    sys.exit(main())
