// node ticket_client.js VERSION CA_FILE: for each port on standard input, a visit that resumes the one before it.
"use strict";
const fs = require("fs");
const tls = require("tls");
const [version, ca] = process.argv.slice(2);
let session;

function visit(port) {
  const options = {
    host: "127.0.0.1", port, servername: "localhost", ca: fs.readFileSync(ca),
    minVersion: version, maxVersion: version, session,
  };
  let how, said = "";
  const socket = tls.connect(options);
  socket.on("session", (each) => (session = each));
  socket.on("data", (data) => (said += data));
  socket.on("error", (error) => (said += error.code));
  socket.on("secureConnect", () => (how = socket.isSessionReused() ? "resumed" : "full"));
  socket.on("close", () => console.log(JSON.stringify([how, said.trim()])));
}

const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => visit(Number(line)));
