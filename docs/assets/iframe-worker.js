// The search runs in a web worker, which browsers refuse to pages that are opened from a folder. There, and only
// there, the worker's script runs in a hidden frame of the page instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = null
      this.ready = new Promise((resolve, reject) => {
        const frame = document.createElement("iframe")
        frame.hidden = true
        frame.title = "search"
        frame.srcdoc = "<!doctype html>" // of this page's origin
        frame.onload = () => {
          const scope = frame.contentWindow
          scope.importScripts = (...urls) =>
            urls.reduce((before, each) => before.then(() => load(scope, each)), Promise.resolve())
          scope.postMessage = data => setTimeout(() => this.hear(data))
          load(scope, url).then(() => resolve(scope), reject)
        }
        document.body.appendChild(frame)
      })
    }

    postMessage(data) {
      this.ready.then(scope => scope.dispatchEvent(new scope.MessageEvent("message", { data })))
    }

    hear(data) {
      const event = new MessageEvent("message", { data })
      this.dispatchEvent(event)
      this.onmessage?.(event)
    }

    terminate() {}
  }

  const load = (scope, url) =>
    new Promise((resolve, reject) => {
      const script = scope.document.createElement("script")
      script.src = new URL(url, location)
      script.onload = resolve
      script.onerror = () => reject(new Error(`${url} can't be loaded`))
      scope.document.head.appendChild(script)
    })
}
