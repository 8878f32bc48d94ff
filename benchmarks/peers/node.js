// Node: node node.js CERTIFICATE KEY BLOCK [memcached HOST:PORT | lookup MILLISECONDS,...]
//
// Without more: echo, upload and download, sessions in tickets. memcached: sessions by newSession and resumeSession in
// memcached, through the few lines of its text protocol that this takes. lookup: a port "session N" for each number,
// whose sessions are in memory, and take N milliseconds to be found.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const tls = require('tls');

const [certificate, key, size, kind, setting] = process.argv.slice(2);
const credentials = {
  cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key),
  maxVersion: 'TLSv1.3',
};
const block = Buffer.alloc(Number(size));

const handlers = {
  echo: (sock) => sock.on('data', (data) => sock.write(data)),
  upload: (sock) => sock.on('data', () => {}),
  download: (sock) => {
    const write = () => { while (!sock.destroyed && sock.write(block)); };
    sock.on('drain', write);
    write();
  },
};

class Memcached {
  constructor(address) {
    const [host, port] = address.split(':');
    this.waiting = [];
    this.received = Buffer.alloc(0);
    this.sock = net.connect({ host, port: Number(port), noDelay: true });
    this.sock.on('data', (data) => this.feed(data));
  }

  feed(data) {
    this.received = this.received.length ? Buffer.concat([this.received, data]) : data;
    for (;;) {
      const end = this.received.indexOf('\r\n');
      if (end < 0) return;
      const line = this.received.toString('latin1', 0, end);
      let value = null;
      let used = end + 2;
      if (line.startsWith('VALUE ')) {
        const length = Number(line.split(' ')[3]);
        if (this.received.length < used + length + 7) return; // and "\r\nEND\r\n"
        value = Buffer.from(this.received.subarray(used, used + length));
        used += length + 7;
      }
      this.received = this.received.subarray(used);
      this.waiting.shift()(value);
    }
  }

  get(id, done) {
    this.waiting.push(done);
    this.sock.write(`get ${id}\r\n`);
  }

  set(id, value, done) {
    this.waiting.push(() => done());
    this.sock.write(Buffer.concat([Buffer.from(`set ${id} 0 300 ${value.length}\r\n`), value, Buffer.from('\r\n')]));
  }
}

class Slow {
  constructor(milliseconds) {
    this.milliseconds = milliseconds;
    this.sessions = new Map();
  }

  get(id, done) {
    const find = () => done(this.sessions.get(id) || null);
    if (this.milliseconds) setTimeout(find, this.milliseconds);
    else find();
  }

  set(id, value, done) {
    this.sessions.set(id, value);
    done();
  }
}

const ports = {};
let starting = 0;

function listen(name, handle, store) {
  const options = { ...credentials, noDelay: true };
  if (store) options.secureOptions = crypto.constants.SSL_OP_NO_TICKET;
  const server = tls.createServer(options, (sock) => {
    sock.on('error', () => {});
    handle(sock);
  });
  if (store) {
    server.on('newSession', (id, data, done) => store.set(id.toString('hex'), data, done));
    server.on('resumeSession', (id, done) => store.get(id.toString('hex'), (data) => done(null, data)));
  }
  server.on('tlsClientError', () => {});
  starting++;
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    ports[name] = server.address().port;
    if (--starting === 0) process.stdout.write(JSON.stringify(ports) + '\n');
  });
}

if (kind === 'lookup') {
  for (const milliseconds of setting.split(',')) {
    listen(`session ${milliseconds}`, handlers.echo, new Slow(Number(milliseconds)));
  }
} else {
  const store = kind === 'memcached' ? new Memcached(setting) : null;
  for (const name of Object.keys(handlers)) listen(name, handlers[name], store);
}
process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
