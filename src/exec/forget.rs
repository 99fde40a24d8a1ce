//! Giving back the memory that a fork has copied. Shell.
//!
//! An init runs as long as its instance, and is born as a copy of the keeper. While the keeper goes on and changes its own pages, the
//! init would keep the old ones, 200 KiB or so for each, with what stood in them: the environments of other instances among the
//! rest. The kernel takes single pages back (MADV_DONTNEED in madvise(2)); the code is shared anyway.

use std::fs;
use std::ops::Range;

/// How much of the stack is left on both sides of the frame that goes on: more than that frame and the deepest call out of it take.
const FRAME_LEN_MAX: usize = 16 * 1024;

/// Pages have this size, or one that divides [`FRAME_LEN_MAX`] too.
const PAGE_LEN: usize = 4096;

/// Gives back the heap, and the stack but for the surroundings of `frame`, which points to a local variable of the caller. What cannot
/// be given back stays, at no harm but its size.
///
/// # Safety
/// The caller never returns, and uses from now on only variables of its own frame, which hold no references: no heap, and nothing of its
/// callers. The process has one thread.
pub(crate) unsafe fn all_but(frame: *const i32) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let (heap, stack) = (named(&maps, "[heap]"), named(&maps, "[stack]"));
    drop(maps);
    // SAFETY: only asks where it is.
    let errno = unsafe { libc::__errno_location() } as usize;
    // In programs without dynamic linking the variables of the thread may stand in the heap; then it stays.
    if !heap.contains(&errno) {
        give_back(heap);
    }
    let here = frame as usize & !(PAGE_LEN - 1);
    if stack.contains(&here) {
        give_back(stack.start..stack.start.max(here - FRAME_LEN_MAX));
        give_back(stack.end.min(here + FRAME_LEN_MAX)..stack.end);
    }
}

fn give_back(pages: Range<usize>) {
    if !pages.is_empty() {
        // SAFETY: these pages are this process's own, and its caller has promised that nothing in them is used again.
        unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_DONTNEED) };
    }
}

/// The addresses of the mapping of this name (proc_pid_maps(5)); an empty range when there is none.
fn named(maps: &str, name: &str) -> Range<usize> {
    let addresses = maps.lines().find(|line| line.ends_with(name)).and_then(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    });
    addresses.unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_found_by_their_names() {
        let maps = "55ea373ee000-55ea37438000 rw-p 00000000 00:00 0            [heap]\n\
                    7ffcfaa8e000-7ffcfaacf000 rw-p 00000000 00:00 0            [stack]\n";
        assert_eq!(named(maps, "[heap]"), 0x55ea_373e_e000..0x55ea_3743_8000);
        assert_eq!(named(maps, "[stack]"), 0x7ffc_faa8_e000..0x7ffc_faac_f000);
        assert!(named(maps, "[vdso]").is_empty());
        let own = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!named(&own, "[heap]").is_empty() && !named(&own, "[stack]").is_empty());
    }
}
