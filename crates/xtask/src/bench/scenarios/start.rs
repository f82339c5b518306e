//! Starting, and doing nothing.

use std::time::Duration;

use super::super::report::{MIB, Measurement};
use super::{Folder, Measured, World};

/// Cold: an empty data directory, so keys and certificates are made. Warm: the directory of an earlier run.
pub(super) async fn start(world: World) -> Measured {
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    for _ in 0..world.sizes().starts {
        let folder = Folder::new()?;
        for times in [&mut cold, &mut warm] {
            let server = world.start(&folder, 1).await?;
            times.push(server.ready_after);
            server.stop().await?;
        }
    }
    let note = |times: &[Duration]| {
        format!("median of {}, slowest {:.3} s", times.len(), seconds(times.iter().max()))
    };
    let cold_median = median(&mut cold);
    let warm_median = median(&mut warm);
    Ok(vec![
        Measurement::new("start to ready, cold", cold_median, "s").note(note(&cold)),
        Measurement::new("start to ready, warm", warm_median, "s").note(note(&warm)).at_most(0.5),
    ])
}

pub(super) async fn idle(world: World) -> Measured {
    let folder = Folder::new()?;
    let server = world.start(&folder, 1).await?;
    let cpu_before = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(world.sizes().idle_seconds)).await;
    let cpu = server.cpu()? - cpu_before;
    let resident = server.resident()? as f64 / MIB;
    server.stop().await?;
    let note = format!(
        "one simulated node; {:.2} % of one core meanwhile",
        cpu.as_secs_f64() * 100.0 / world.sizes().idle_seconds as f64
    );
    let what = format!("idle memory after {} s", world.sizes().idle_seconds);
    Ok(vec![Measurement::new(what, resident, "MiB").note(note).at_most(60.0)])
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    seconds(times.get(times.len() / 2))
}

fn seconds(time: Option<&Duration>) -> f64 {
    time.copied().unwrap_or_default().as_secs_f64()
}
