// The drawing itself: strokes on a transparent layer over white and, if there is one, a picture beneath.

const UNDO_STEPS = 40;
const PAPER = "#ffffff";

export class Sketch {
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange; // (isStrokeEnd) => void
    this.size = 5;
    this.colour = "#16181d";
    this.erases = false;
    this.beneath = null;
    this.undone = [];
    this.done = [];
    this.layer = new OffscreenCanvas(canvas.width, canvas.height);
    this.ink = this.layer.getContext("2d", { willReadFrequently: true });
    this.ink.lineCap = this.ink.lineJoin = "round";
    this.view = canvas.getContext("2d");
    this.pointer = null;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(end, (event) => this.end(event));
    this.show();
  }

  get isEmpty() {
    return this.beneath === null && this.done.length === 0;
  }

  begin(event) {
    if (this.pointer !== null || event.button > 0) return; // a second finger, or not the main button
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.remember();
    this.last = this.place(event);
    this.line(this.last, this.last);
    this.changed(false);
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const move of moves.length ? moves : [event]) {
      const place = this.place(move);
      this.line(this.last, place);
      this.last = place;
    }
    this.changed(false);
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.changed(true);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height); // object-fit: contain
    const left = box.left + (box.width - this.canvas.width * scale) / 2;
    const top = box.top + (box.height - this.canvas.height * scale) / 2;
    const pressure = event.pointerType === "pen" && event.pressure > 0 ? event.pressure : 0.5;
    return { x: (event.clientX - left) / scale, y: (event.clientY - top) / scale, width: this.size * (0.3 + 1.4 * pressure) };
  }

  line(from, to) {
    this.ink.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
    this.ink.strokeStyle = this.colour;
    this.ink.lineWidth = (from.width + to.width) / 2;
    this.ink.beginPath();
    this.ink.moveTo(from.x, from.y);
    this.ink.lineTo(to.x, to.y);
    this.ink.stroke();
  }

  remember() {
    this.done.push(this.snapshot());
    if (this.done.length > UNDO_STEPS) this.done.shift();
    this.undone = [];
  }

  snapshot() {
    return this.ink.getImageData(0, 0, this.layer.width, this.layer.height);
  }

  undo() {
    this.exchange(this.done, this.undone);
  }

  redo() {
    this.exchange(this.undone, this.done);
  }

  exchange(from, to) {
    const snapshot = from.pop();
    if (snapshot === undefined) return;
    to.push(this.snapshot());
    this.ink.putImageData(snapshot, 0, 0);
    this.changed(true);
  }

  clear() {
    this.remember();
    this.ink.clearRect(0, 0, this.layer.width, this.layer.height);
    this.changed(true);
  }

  putBeneath(bitmap) {
    this.beneath = bitmap;
    this.changed(true);
  }

  changed(isStrokeEnd) {
    this.show();
    this.onChange(isStrokeEnd);
  }

  show() {
    this.paint(this.view, this.paperShows !== false);
  }

  // Painted over the picture, the drawing is seen without its paper.
  showPaper(shows) {
    this.paperShows = shows;
    this.show();
  }

  paint(context, withPaper) {
    const { width, height } = this.layer;
    context.clearRect(0, 0, width, height);
    if (withPaper) {
      context.fillStyle = PAPER;
      context.fillRect(0, 0, width, height);
      if (this.beneath) {
        const scale = Math.min(width / this.beneath.width, height / this.beneath.height);
        const [w, h] = [this.beneath.width * scale, this.beneath.height * scale];
        context.drawImage(this.beneath, (width - w) / 2, (height - h) / 2, w, h);
      }
    }
    context.drawImage(this.layer, 0, 0);
  }

  // What is sent: lines stay sharp and small as PNG, a photograph does as WebP.
  async toBlob() {
    const whole = new OffscreenCanvas(this.layer.width, this.layer.height);
    this.paint(whole.getContext("2d"), true);
    return whole.convertToBlob(this.beneath ? { type: "image/webp", quality: 0.92 } : { type: "image/png" });
  }
}
