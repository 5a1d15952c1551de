//! Who joined and who left: published by the hub to every client.

use serde::{Deserialize, Serialize};

use crate::extension;
use crate::id::{EngineId, EngineUuid};

/// An engine can be used from now on.
pub const REGISTRATION_NOTIFICATION: &str = "registration_notification";
/// An engine is gone.
pub const UNREGISTRATION_NOTIFICATION: &str = "unregistration_notification";
/// The controller ends.
pub const SHUTDOWN_NOTIFICATION: &str = "shutdown_notification";

/// Content of `registration_notification` and `unregistration_notification`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineNotification {
    /// The engine's id.
    pub id: EngineId,
    /// The engine's name.
    pub uuid: EngineUuid,
    /// Our additions: who joined.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::EngineDescription>,
    /// Our addition: why it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
