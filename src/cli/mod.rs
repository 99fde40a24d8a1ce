//! The user's hand: words, tables, exit codes.
