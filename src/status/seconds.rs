//! Every time in whole seconds: the one form in which programs get them. What is decided by, and kept on disk, is as exact
//! as it was taken.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    AppliedRefused, AppliedStatus, ConfigRefused, CredentialStatus, DaemonStatus, FailureStatus, InUseStatus,
    LiveStatus, NotListening, Notice, OwedStatus, PendingStatus, ReportOwed, Status, Woken,
};
use crate::audit::{AuditLine, Record};
use crate::credential::VersionId;
use crate::fault::Failure;
use crate::rollover::{Approval, CloneOf, Rejected, ReloadOwed, Report, Tried, Waiting, whole_seconds};

/// What holds times, and is printed for programs.
pub trait InSeconds {
    /// Takes what is less than a second off each.
    fn in_seconds(&mut self);
}

impl InSeconds for Timestamp {
    fn in_seconds(&mut self) {
        *self = whole_seconds(*self);
    }
}

impl<T: InSeconds> InSeconds for Option<T> {
    fn in_seconds(&mut self) {
        self.iter_mut().for_each(InSeconds::in_seconds);
    }
}

impl<T: InSeconds> InSeconds for Vec<T> {
    fn in_seconds(&mut self) {
        self.iter_mut().for_each(InSeconds::in_seconds);
    }
}

impl<T: InSeconds> InSeconds for BTreeMap<String, T> {
    fn in_seconds(&mut self) {
        self.values_mut().for_each(InSeconds::in_seconds);
    }
}

/// The fields of a type that hold times.
macro_rules! in_seconds {
    ($($of:ty: $($field:ident),+;)+) => {$(
        impl InSeconds for $of {
            fn in_seconds(&mut self) {
                $(self.$field.in_seconds();)+
            }
        }
    )+};
}

in_seconds! {
    Status: at, daemon, clone_of, credentials;
    DaemonStatus: since, config_since, config_refused, not_listening;
    NotListening: since;
    ConfigRefused: at;
    CloneOf: at;
    CredentialStatus: applied, in_use, applied_refused, own_login, pending, failures, owed, withdrawn, not_put_back, left,
        reports_owed, notices, next, live, report, history;
    AppliedStatus: since, version_stored;
    InUseStatus: at;
    AppliedRefused: since, at;
    Tried: at;
    PendingStatus: first_seen, first_refused, waits_since, approval, rejected, not_newer;
    Approval: at, until;
    Rejected: id, at;
    FailureStatus: failure, next;
    Failure: at;
    OwedStatus: owed;
    ReloadOwed: since;
    ReportOwed: failure, next;
    Notice: at;
    LiveStatus: answered, woken, source_asked, next_wake;
    Woken: at;
    Report: waiting;
    Waiting: opens;
    AuditLine: record;
    Record: at;
}

impl InSeconds for VersionId {
    fn in_seconds(&mut self) {
        if let Some(order) = &mut self.order {
            order.at.in_seconds();
        }
    }
}
