//! What is told when acknowledged records are lost, whoever finds it.

use lapwing_engine::alert::Level;

use super::selfalert::Notice;

/// `journal` is `event` or `alert`; `what` names the records.
pub fn notice(journal: &str, what: &str) -> Notice {
    Notice {
        id: "lapwing-journal-damaged",
        title: "Stored records are damaged or missing",
        level: Level::Critical,
        subject: journal.to_owned(),
        summary: format!("The {journal} journal lost what it had acknowledged: {what}"),
        why: "Events that were accepted cannot be judged or shown any more. Disks do this, and so do intruders who want \
              to hide something.",
        next_steps: &[
            "lapwing journal verify tells what is lost and where",
            "look at the disk and at who may write to dataDir",
            "restore dataDir from a backup if the records are needed",
        ],
        ..Notice::default()
    }
}
