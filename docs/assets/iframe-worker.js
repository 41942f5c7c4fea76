// Search from a disk. Browsers start no Worker on a page of file://, so there the search script runs in a hidden frame
// of the page's own origin, and messages pass as a Worker would send them.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.head.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = (data) => this.receive(data)
      this.inside.importScripts = async (...all) => {
        for (const one of all) await this.load(new URL(one, address))
      }
      this.ready = this.load(address)
    }

    load(address) {
      return new Promise((done, failed) => {
        const script = this.inside.document.createElement("script")
        script.src = address
        script.onload = done
        script.onerror = failed
        this.inside.document.body.append(script)
      })
    }

    receive(data) {
      const message = new MessageEvent("message", { data })
      this.dispatchEvent(message)
      if (this.onmessage) this.onmessage(message)
    }

    async postMessage(data) {
      await this.ready
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
