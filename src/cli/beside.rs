//! The two endpoints beside the server that report its state: the admin endpoint, and the agent that a balancer asks.

use super::exit::ExitError;
use super::live::handed::{ADMIN, AGENT, Handed};
use super::plan::Plan;
use crate::admin::{Admin, AdminHandle, Agent, AgentHandle};
use crate::metrics::snapshot::Observe;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Something of each that there is: its address, its handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<A, B = A> {
    pub(super) admin: Option<A>,
    pub(super) agent: Option<B>,
}

/// The two while they serve; dropping them ends them.
pub(super) type BesideHandles = Beside<AdminHandle, AgentHandle>;

impl Beside<AdminHandle, Agent> {
    /// Binds both, and serves the admin endpoint. Balancers that ask the agent wait until it serves too.
    pub(super) fn bind(
        plan: &Plan,
        observe: &Arc<dyn Observe>,
        handed: &mut Handed,
    ) -> Result<Self, ExitError> {
        let admin = plan.admin.map(|address| admin(address, plan, observe.clone(), handed)).transpose()?;
        let agent = plan.agent.map(|address| agent(address, observe.clone(), handed)).transpose()?;
        Ok(Self { admin, agent })
    }

    /// Serves the agent. Call it when the server serves: before that it would say that it is down.
    pub(super) fn serve(self) -> Result<BesideHandles, ExitError> {
        let agent = self.agent.map(Agent::serve).transpose();
        let agent = agent.map_err(|error| ExitError::failed(format!("cannot start the agent: {error}")))?;
        Ok(Beside { admin: self.admin, agent })
    }
}

impl BesideHandles {
    pub(super) fn addresses(&self) -> Beside<SocketAddr> {
        Beside {
            admin: self.admin.as_ref().map(AdminHandle::address),
            agent: self.agent.as_ref().map(AgentHandle::address),
        }
    }

    /// The listening sockets by their names, to be handed over to the program that takes this one's place.
    pub(super) fn sockets(&self) -> io::Result<Vec<(&'static str, OwnedFd)>> {
        let admin = self.admin.as_ref().map(AdminHandle::socket).map(|socket| (ADMIN, socket));
        let agent = self.agent.as_ref().map(AgentHandle::socket).map(|socket| (AGENT, socket));
        admin.into_iter().chain(agent).map(|(name, socket)| Ok((name, socket.try_clone()?))).collect()
    }
}

fn admin(
    address: SocketAddr,
    plan: &Plan,
    observe: Arc<dyn Observe>,
    handed: &mut Handed,
) -> Result<AdminHandle, ExitError> {
    let mut builder = Admin::builder(address, observe);
    if let Some(socket) = handed.for_endpoint(ADMIN, address) {
        builder = builder.socket(socket);
    }
    let builder = plan.admin_hosts.iter().fold(builder, |builder, host| builder.host(host));
    let builder = if plan.admin_control { builder.on_reload(order_reload) } else { builder };
    let admin = builder.bind().map_err(|error| cannot_open("admin endpoint", "--admin", address, &error))?;
    admin.serve().map_err(|error| ExitError::failed(format!("cannot start the admin endpoint: {error}")))
}

/// Gives the order as everybody else does, by the signal. It waits for the thread that takes it, however early it comes.
fn order_reload() -> io::Result<()> {
    use rustix::process::{Signal, getpid, kill_process};
    Ok(kill_process(getpid(), Signal::HUP)?)
}

fn agent(address: SocketAddr, observe: Arc<dyn Observe>, handed: &mut Handed) -> Result<Agent, ExitError> {
    let mut builder = Agent::builder(address, observe);
    if let Some(socket) = handed.for_endpoint(AGENT, address) {
        builder = builder.socket(socket);
    }
    builder.bind().map_err(|error| cannot_open("agent", "--agent", address, &error))
}

fn cannot_open(what: &str, option: &str, address: SocketAddr, error: &io::Error) -> ExitError {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the address is in use, perhaps by another tidegate: choose another port, like {option} {}, or {option} off",
            SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(9464))
        ),
        io::ErrorKind::PermissionDenied => {
            format!("permission denied: ports below 1024 need a privilege, choose a higher one with {option}")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    };
    ExitError::failed(format!("cannot open the {what} on {address}: {why}"))
}
