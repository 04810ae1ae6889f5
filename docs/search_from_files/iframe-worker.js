// Search without a server: browsers start no worker from a file, so a hidden frame takes its place.
// The theme asks for a script of this name; from a server it does nothing.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.body.appendChild(document.createElement("iframe"))
      frame.hidden = true
      this.inside = frame.contentWindow
      window.addEventListener("message", (event) => {
        if (event.source === this.inside)
          this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      const page = frame.contentDocument
      page.open()
      page.write(`<script>
        postMessage = parent.postMessage.bind(parent)
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done) => {
          const script = document.head.appendChild(document.createElement("script"))
          script.onload = done
          script.src = url
        })), Promise.resolve())
      <\/script>`)
      page.close()
      this.ready = new Promise((done) => {
        const script = page.head.appendChild(page.createElement("script"))
        script.onload = done
        script.src = url
      })
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {}
  }
}
