//! The tables of `/debug/api_priority_and_fairness/`.

use jiff::Timestamp;

use crate::FlowControl;
use crate::queues::{Shown, Waiting};

/// Columns are at least this wide.
const COLUMN_WIDTH_MIN: usize = 8;

impl FlowControl {
    /// What each priority level has done and has to do.
    pub fn dump_priority_levels(&self) -> String {
        let mut rows = vec![row([
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for (name, active) in &self.current().levels {
            let level = &active.level;
            let state = level.state();
            let busy = |queue: &&crate::queues::Queue| !queue.waiting.is_empty();
            let active_queues = level.with_queues(|queues| queues.queues().iter().filter(busy).count());
            let count = |counter: &std::sync::atomic::AtomicU64| {
                counter.load(std::sync::atomic::Ordering::Relaxed).to_string()
            };
            rows.push(vec![
                name.to_string(),
                active_queues.to_string(),
                level.is_idle().to_string(),
                active.quiescing.to_string(),
                state.waiting.to_string(),
                state.executing.to_string(),
                count(&level.dispatched),
                count(&level.rejected),
                "0".to_owned(),
                count(&level.cancelled),
            ]);
        }
        table(&rows)
    }

    /// The queues of each level.
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![row([
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for (name, active) in &self.current().levels {
            active.level.with_queues(|queues| {
                for (index, queue) in queues.queues().iter().enumerate() {
                    let initial: u32 = queue.waiting.iter().map(|waiting| waiting.width.seats).sum();
                    rows.push(vec![
                        name.to_string(),
                        index.to_string(),
                        queue.waiting.len().to_string(),
                        queue.executing.to_string(),
                        queue.seats_in_use.to_string(),
                        format!("{:.8}ss", queue.next_start),
                        initial.to_string(),
                        queue.seats_waiting.to_string(),
                        format!("{:.8}ss", queue.work_waiting),
                    ]);
                }
            });
        }
        table(&rows)
    }

    /// The requests that wait.
    pub fn dump_requests(&self, details: bool) -> String {
        let mut head = row([
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ]);
        if details {
            let more =
                ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
            head.extend(row(more));
        }
        let mut rows = vec![head];
        for (name, active) in &self.current().levels {
            active.level.with_queues(|queues| {
                for (queue_index, queue) in queues.queues().iter().enumerate() {
                    for (index, waiting) in queue.waiting.iter().enumerate() {
                        rows.push(request(name, queue_index, index, waiting, details));
                    }
                }
            });
        }
        table(&rows)
    }
}

/// Go's zero time: it has not started.
const NOT_STARTED: &str = "0001-01-01T00:00:00Z";

fn request(level: &str, queue: usize, index: usize, waiting: &Waiting, details: bool) -> Vec<String> {
    let Shown { schema, distinguisher, arrived, .. } = &waiting.shown;
    let arrived = Timestamp::try_from(*arrived).map(|time| time.to_string()).unwrap_or_default();
    let mut cells = vec![
        level.to_owned(),
        schema.to_string(),
        queue.to_string(),
        index.to_string(),
        distinguisher.clone(),
        arrived,
        waiting.width.seats.to_string(),
        waiting.width.final_seats.to_string(),
        format!("{:?}", waiting.width.lingering),
        NOT_STARTED.to_owned(),
    ];
    if details {
        let Shown { user, verb, path, namespace, name, api_version, resource, subresource, .. } =
            &waiting.shown;
        let more = [user, verb, path, namespace, name, api_version, resource, subresource];
        cells.extend(more.map(String::clone));
    }
    cells
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Cells end with a comma, save the last of a row, and begin below each other.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width_of = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0);
        widest.max(COLUMN_WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == columns {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{:<width$}", format!("{cell},"), width = widths[column]));
            }
        }
        text.push('\n');
    }
    text
}
