// node peer.js client PORT CA_FILE NAME PROTOCOLS TIMES [CERTIFICATE KEY] < REQUEST
// node peer.js server VERSION CERTIFICATE KEY PROTOCOLS [CA_FILE]
"use strict";
const fs = require("fs");
const tls = require("tls");
const list = (text) => (text ? text.split(",") : undefined);
const say = (facts) => console.error(JSON.stringify(facts));

function client(port, ca, servername, protocols, times, cert, key) {
  const request = fs.readFileSync(0);
  const options = {
    host: "127.0.0.1",
    port,
    servername,
    ca: fs.readFileSync(ca),
    ALPNProtocols: list(protocols),
    cert: cert && fs.readFileSync(cert),
    key: key && fs.readFileSync(key),
  };
  const connect = (left, session) => {
    const socket = tls.connect({ ...options, session }, () => socket.write(request));
    let ticket, received = Buffer.alloc(0);
    socket.on("session", (each) => (ticket = each));
    socket.on("error", (error) => { say({ refused: error.code }); process.exitCode = 1; });
    socket.on("data", (data) => {
      received = Buffer.concat([received, data]);
      if (received.subarray(-16).equals(request.subarray(-16))) socket.end();
    });
    socket.on("secureConnect", () => say({
      version: socket.getProtocol(),
      alpn: socket.alpnProtocol || null,
      verified: socket.authorized,
      resumed: socket.isSessionReused(),
    }));
    socket.on("close", () => {
      process.stdout.write(received);
      if (left > 1) connect(left - 1, ticket);
    });
  };
  connect(Number(times));
}

function server(version, cert, key, protocols, ca) {
  const options = {
    minVersion: version,
    maxVersion: version,
    cert: fs.readFileSync(cert),
    key: fs.readFileSync(key),
    ALPNProtocols: list(protocols),
    ca: ca && fs.readFileSync(ca),
    requestCert: Boolean(ca),
  };
  const listener = tls.createServer(options, (socket) => {
    const peer = socket.getPeerCertificate();
    say({
      version: socket.getProtocol(),
      alpn: socket.alpnProtocol || null,
      resumed: socket.isSessionReused(),
      client: (peer.subject && peer.subject.CN) || null,
    });
    socket.on("error", (error) => say({ error: error.code }));
    socket.on("end", () => say({ closed: true }));
    socket.pipe(socket);
  });
  listener.on("tlsClientError", (error) => say({ refused: error.code }));
  listener.listen(0, "127.0.0.1", () => say({ port: listener.address().port }));
}

const [role, ...words] = process.argv.slice(2);
({ client, server })[role](...words);
