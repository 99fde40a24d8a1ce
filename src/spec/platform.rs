//! What a program runs on, from the first bytes of its file. Pure.
