//! Who a program runs as: looked up where names are known, become where the program is about to run. Shell.
//!
//! The node looks a user up, since a directory service may take its time and the keeper waits for nothing; the keeper's child
//! becomes it. Groups go first and the user last, because only root may change groups (setgroups(2), setresgid(2),
//! setresuid(2)), and what the kernel took over is read back: a call that is ignored must not leave a program as root.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid, User};

use crate::confinement::Confinement;
use crate::exec::cause::Cause;
use crate::exec::plan::Identity;

/// Why this host does not know a user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookUpError {
    #[error(
        "cannot run as `{0}`: this host has no such user\nhint: `user` is a name or number that `getent passwd` knows here"
    )]
    NoSuchUser(String),
    #[error("cannot look up the user `{user}`: {cause}")]
    User { user: String, cause: Cause },
    #[error("cannot look up the groups of the user `{user}`: {cause}")]
    Groups { user: String, cause: Cause },
}

/// Looks up a user of this host by name or number. May wait for a directory service.
pub(crate) fn look_up(user: &str) -> Result<Identity, LookUpError> {
    let found = match user.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    };
    let found = found.map_err(|e| LookUpError::User { user: user.to_owned(), cause: e.into() })?;
    let found = found.ok_or_else(|| LookUpError::NoSuchUser(user.to_owned()))?;
    let groups = CString::new(found.name.as_bytes()).map_err(|_| Errno::EINVAL);
    let groups = groups.and_then(|name| unistd::getgrouplist(&name, found.gid));
    let groups = groups.map_err(|e| LookUpError::Groups { user: user.to_owned(), cause: e.into() })?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Identity { name: found.name, uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups })
}

/// Why a program cannot run as its user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("cannot run as `{0}`: the node did not say who that is on this host")]
    NotLookedUp(String),
    #[error("cannot run as `{user}`: narun runs as user {own} here, and only root can become another user")]
    NotRoot { user: String, own: Uid },
    #[error("cannot keep capabilities for the step after this one: {0}")]
    KeepCapabilities(Cause),
    #[error("cannot take on the {what} of `{user}`: {cause}")]
    Take { what: &'static str, user: String, cause: Cause },
    #[error("the kernel did not take on the {what} of `{user}`")]
    NotTaken { what: &'static str, user: String },
}

/// The user that a confinement asks for, and that this process can become; none: it runs as whoever the keeper is.
pub(crate) fn asked<'a>(
    confinement: &Confinement,
    identity: Option<&'a Identity>,
) -> Result<Option<&'a Identity>, IdentityError> {
    match (&confinement.user, identity) {
        (None, _) => Ok(None),
        (Some(_), Some(identity)) => {
            let own = unistd::geteuid();
            if own.is_root() || own.as_raw() == identity.uid {
                return Ok(Some(identity));
            }
            Err(IdentityError::NotRoot { user: identity.name.clone(), own })
        }
        (Some(user), None) => Err(IdentityError::NotLookedUp(user.clone())),
    }
}

/// Has this process become the user. Capabilities stay permitted, so that the step after this one can say which are kept; it
/// must follow.
pub(crate) fn take_on(identity: &Identity) -> Result<(), IdentityError> {
    let user = || identity.name.clone();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    if !unistd::geteuid().is_root() {
        // An ordinary user is itself already, with its groups; it was asked for nobody else.
        return Ok(());
    }
    // SAFETY: a flag of this process alone, cleared by exec (PR_SET_KEEPCAPS in prctl(2)).
    let kept = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    Errno::result(kept).map_err(|e| IdentityError::KeepCapabilities(e.into()))?;
    let take =
        |what, result: nix::Result<()>| result.map_err(|e| IdentityError::Take { what, user: user(), cause: e.into() });
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    take("groups", unistd::setgroups(&groups))?;
    take("group", unistd::setresgid(gid, gid, gid))?;
    take("user", unistd::setresuid(uid, uid, uid))?;

    let taken = |what, is: bool| if is { Ok(()) } else { Err(IdentityError::NotTaken { what, user: user() }) };
    let set = |mut groups: Vec<Gid>| {
        groups.sort_by_key(|group| group.as_raw());
        groups.dedup();
        groups
    };
    taken("groups", unistd::getgroups().is_ok_and(|now| set(now) == set(groups)))?;
    let is_group = |ids: unistd::ResGid| [ids.real, ids.effective, ids.saved].iter().all(|id| *id == gid);
    taken("group", unistd::getresgid().is_ok_and(is_group))?;
    let is_user = |ids: unistd::ResUid| [ids.real, ids.effective, ids.saved].iter().all(|id| *id == uid);
    taken("user", unistd::getresuid().is_ok_and(is_user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number() {
        let root = look_up("root").unwrap();
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 0, "root"));
        assert!(root.groups.contains(&0));
        assert_eq!(look_up("0").unwrap(), root);
        let error = look_up("no-such-user").unwrap_err().to_string();
        assert!(error.starts_with("cannot run as `no-such-user`: this host has no such user\n"), "{error}");
        assert!(look_up("4000000000").is_err());
        assert!(look_up("").is_err());
    }

    #[test]
    fn a_user_that_nobody_looked_up_is_refused() {
        let confinement = Confinement { user: Some("www".to_owned()), ..Confinement::default() };
        let error = asked(&confinement, None).unwrap_err().to_string();
        assert_eq!(error, "cannot run as `www`: the node did not say who that is on this host");
        assert_eq!(asked(&Confinement::default(), None).unwrap(), None);
    }
}
