//! What makes a shim of one kind of workload: the rest of this crate starts it, finds it again, publishes its events and
//! ends it, whatever it keeps.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use corten_runtime_client::Reaper;
use corten_task_api::proto::containerd::task::v3::DeleteResponse;
use corten_task_api::proto::containerd::types::RuntimeInfo;
use corten_task_api::time::{now_ns, to_timestamp};
use corten_task_api::ttrpc::Router;
use prost::Message;
use prost_types::Any;
use tokio::sync::Notify;

use crate::args::{Args, Verb};
use crate::events::Events;
use crate::{bootstrap, pod_init, serve, start, trace};

/// The exit status of what SIGKILL has ended.
const KILLED: u32 = 128 + 9;

/// A kind of workload: containers are one ([`crate::Containers`]); examples/ has another.
pub trait Workload: 'static {
    /// Answers the calls of containerd's Task service (see [`corten_task_api::services::TASK`]) and of what else it likes.
    type Service: Router;

    /// The shim's name, as its binary is called.
    fn name(&self) -> &'static str;

    /// Makes the service. Called once, within tokio, in the process that stays.
    fn service(&self, host: Host) -> Rc<Self::Service>;

    /// Takes away what a killed shim has left of `args.id` in its bundle. What is gone already is no error. By default:
    /// nothing, for workloads that end with their shim.
    ///
    /// # Errors
    /// What couldn't be taken away.
    fn delete(&self, _args: &Args, _bundle: &Path) -> anyhow::Result<DeleteResponse> {
        Ok(DeleteResponse {
            exit_status: KILLED,
            exited_at: to_timestamp(now_ns()),
            ..DeleteResponse::default()
        })
    }

    /// What `-info` tells; `options` as they are in containerd's configuration.
    ///
    /// # Errors
    /// Options that it doesn't understand.
    fn info(&self, options: Option<Any>) -> anyhow::Result<RuntimeInfo> {
        Ok(RuntimeInfo { name: self.name().to_owned(), options, ..RuntimeInfo::default() })
    }
}

/// What a service finds in its shim.
#[derive(Clone, Debug)]
pub struct Host {
    /// How it was started.
    pub args: Args,
    /// Publishes events.
    pub events: Rc<Events>,
    /// Starts processes and waits for them.
    pub reaper: Reaper,
    /// Told when the shim shall end; it answers what it is about to answer first.
    pub leave: Rc<Notify>,
}

/// What a shim's `main` consists of.
pub fn main(workload: &impl Workload) -> ExitCode {
    let args = Args::parse(std::env::args_os().skip(1)).map_err(anyhow::Error::from);
    match args.and_then(|args| run(args, workload)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", workload.name());
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args, workload: &impl Workload) -> anyhow::Result<()> {
    match args.verb {
        Verb::Version => {
            println!("{}:\n  Version: {}", workload.name(), env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Verb::Info => {
            let given = Any::decode(bootstrap::read_stdin()?.as_slice())?;
            let options = (!given.type_url.is_empty()).then_some(given);
            print(&workload.info(options)?)
        }
        Verb::Start => start::run(args),
        Verb::Delete => {
            let bundle = match &args.bundle {
                Some(bundle) => bundle.clone(),
                None => std::env::current_dir()?,
            };
            print(&workload.delete(&args, &bundle)?)
        }
        Verb::Serve => {
            trace::install(args.debug);
            serve::run(args, workload)
        }
        Verb::PodInit => pod_init::run(&args),
    }
}

/// To standard output, to the byte.
fn print(message: &impl Message) -> anyhow::Result<()> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &message.encode_to_vec())?)
}
