//! The port. It is open, or shut so that connections are refused. The sandbox always keeps it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Mutex, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Connection, Doorway},
    shared::Shared,
};

/// How many connections may wait to be accepted: more than any test has in flight.
const BACKLOG: u32 = 1024;

/// The limit on closing a listening socket. It takes long only if the runtime is starved.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The sandbox's port.
pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    /// This socket is bound and never listens. While the door is shut, the kernel refuses connections, and
    /// it never gives the port to another program.
    _keeper: TcpSocket,
    routes: Routes,
    state: Mutex<State>,
}

/// Builds the router that answers requests on this port. The router contains the control plane, which opens
/// and shuts the door. So the router needs the door, and the door needs the router.
pub(crate) type Routes = fn(Arc<Shared>, Arc<Door>) -> Router;

enum State {
    Shut,
    Open { close: CancellationToken, closed: oneshot::Receiver<()> },
}

impl Door {
    /// Takes the port and does not listen yet.
    pub(crate) fn bind(addr: SocketAddr, routes: Routes) -> io::Result<Self> {
        let keeper = bound(addr)?;
        Ok(Self { addr: keeper.local_addr()?, _keeper: keeper, routes, state: Mutex::new(State::Shut) })
    }

    /// Listens, if it does not listen already.
    pub(crate) async fn open(self: &Arc<Self>, shared: &Arc<Shared>) -> io::Result<()> {
        let mut state = self.state.lock().await;
        if let State::Shut = *state {
            *state = self.serve(shared, bound(self.addr)?.listen(BACKLOG)?);
        }
        Ok(())
    }

    fn serve(self: &Arc<Self>, shared: &Arc<Shared>, listener: TcpListener) -> State {
        let (closing, closed) = oneshot::channel();
        let doorway = Doorway { listener, shared: Arc::clone(shared), _closed: closing };
        let app = (self.routes)(Arc::clone(shared), Arc::clone(self));
        let app = app.into_make_service_with_connect_info::<Connection>();
        let close = shared.life.child_token();
        let server = axum::serve(doorway, app).with_graceful_shutdown(close.clone().cancelled_owned());
        shared.tasks.spawn(server.into_future());
        State::Open { close, closed }
    }

    /// Refuses connections from now on, if it does not already. Idle connections are closed. Requests in
    /// progress are answered, and then their connections are closed.
    pub(crate) async fn shut(&self) -> io::Result<()> {
        let mut state = self.state.lock().await;
        if let State::Open { close, closed } = &mut *state {
            close.cancel();
            // This ends once the listening socket is dropped. Its result does not matter.
            let _ = timeout(CLOSE_LIMIT, closed).await?;
            *state = State::Shut;
        }
        Ok(())
    }
}

fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Closed connections stay on the port for a minute, and must not prevent binding it again. The option also
    // lets the listener bind the same port as the keeper, because the keeper does not listen.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}
