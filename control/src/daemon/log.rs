//! Logs to stderr: with time for a terminal or a file, with syslog priorities (sd-daemon(3)) for the journal.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging; `filter` is a level or a list of directives such as `info,weir_control::netlink=debug`.
///
/// # Errors
/// The filter is not understood, or logging was started before.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}"))?;
    // A reader of the log that goes away must not take weir with it: an internal error would go to stderr too, and panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = if stderr_is_the_journals() {
        builder.event_format(Journal).try_init()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_target(false).with_ansi(terminal).try_init()
    };
    started.map_err(|error| error.to_string())?;
    #[cfg(feature = "dpdk")]
    weir_dataplane::io::dpdk::set_log(from_dpdk);
    Ok(())
}

/// A line of DPDK's log. What it says of its own doings is for whoever looks closer.
#[cfg(feature = "dpdk")]
fn from_dpdk(level: weir_dataplane::io::dpdk::Level, line: &str) {
    use weir_dataplane::io::dpdk::Level as Dpdk;
    match level {
        Dpdk::Error => tracing::error!("DPDK: {line}"),
        Dpdk::Warning => tracing::warn!("DPDK: {line}"),
        Dpdk::Info | Dpdk::Debug => tracing::debug!("DPDK: {line}"),
    }
}

/// Whether stderr is what JOURNAL_STREAM names by device and inode (systemd.exec(5)), and not a file or a terminal.
fn stderr_is_the_journals() -> bool {
    let Some(journal) = std::env::var_os("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| journal == *format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// One line an event, with its priority in front and without a time: the journal has its own.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        // Every line of an event needs the priority, or the journal takes it for another event's.
        for line in text.lines() {
            writeln!(writer, "<{priority}>{line}")?;
        }
        Ok(())
    }
}
