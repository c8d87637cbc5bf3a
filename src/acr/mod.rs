//! Password-free pulls from Alibaba Cloud Container Registry: from the operator's identity over the roles that an
//! object names to a temporary user and password of each registry. What may be asked for was decided before, in
//! `model::acr`; here it is asked. Nothing is kept: the logins go to the caller, who puts them into the run's
//! credentials Secret and nowhere else.
//!
//! | file | answers for |
//! |---|---|
//! | [`identity`] | who the operator is: a service account's token, or an access key |
//! | [`endpoints`] | where STS and ACR are |
//! | [`flags`] | how people say both |
//! | `sign` | signatures (pure) |
//! | `call` | one call: signed, sent, within limits |
//! | `answer` | what answers and refusals mean (pure) |
//! | `chain` | identity, roles, instance, login: in this order |

mod answer;
mod call;
mod chain;
pub mod endpoints;
pub mod flags;
pub mod identity;
mod sign;

pub use chain::{Acr, Taken};
