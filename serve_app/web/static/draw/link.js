// The connection: binary frames both ways, one session, back by itself.

const PAUSES_MS = [300, 600, 1200, 2500, 5000];
const REFUSED = 4400;
const EXPIRED = 4408;
const PING_MS = 20000;

export class Link {
  // on: {opened(newestSeq), closed(), expired(), message(header, blob | null)}
  constructor(on) {
    this.on = on;
    this.session = sessionStorage.getItem("atelier-session") ?? this.begin();
    this.failures = 0;
    this.ready = false;
    this.connect();
    setInterval(() => this.say({ type: "ping" }), PING_MS);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  begin() {
    const bytes = crypto.getRandomValues(new Uint8Array(18));
    const session = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
    sessionStorage.setItem("atelier-session", session);
    return session;
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    const url = new URL(`api/ws/${this.session}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", binary: true, previews: true, ack: true }));
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => this.lost(event.code);
    this.socket = socket;
  }

  hurry() {
    if (this.timer !== null) this.connect();
  }

  lost(code) {
    this.ready = false;
    if (code === EXPIRED || code === REFUSED) {
      this.session = this.begin();
      this.on.expired();
    } else {
      this.on.closed();
    }
    this.timer = setTimeout(() => this.connect(), PAUSES_MS[Math.min(this.failures, PAUSES_MS.length - 1)]);
    this.failures += 1;
  }

  take(data) {
    if (typeof data === "string") {
      const header = JSON.parse(data);
      if (header.status === "connected") {
        this.failures = 0;
        this.ready = true;
        this.on.opened(header.seq);
      } else {
        this.on.message(header, null);
      }
      return;
    }
    const size = new DataView(data).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
    this.on.message(header, new Blob([new Uint8Array(data, 4 + size)], { type: header.media_type }));
  }

  // Say that a picture is on the screen: the next one is sent then, and not before.
  acknowledge() {
    this.say({ type: "ack" });
  }

  say(message) {
    if (this.ready) this.socket.send(JSON.stringify(message));
  }

  // Whether another sketch may be sent, or the ones before still lie in this machine.
  get isFree() {
    return this.ready && this.socket.bufferedAmount < 256 * 1024;
  }

  async send(header, blob) {
    const head = new TextEncoder().encode(JSON.stringify(header));
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, head.length);
    this.socket.send(await new Blob([length, head, blob]).arrayBuffer());
  }
}
