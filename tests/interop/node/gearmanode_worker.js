// The repertoire of jobs (see foreign.py) as a worker on the gearmanode package. Expectations live in the tests.
//
// Usage: node gearmanode_worker.js PORT PREFIX
'use strict'

const fs = require('fs')
const gearmanode = require('gearmanode')

const [port, prefix] = process.argv.slice(2)
const worker = gearmanode.worker({ host: '127.0.0.1', port: parseInt(port), withUnique: true })
worker.on('error', (error) => { throw error })
worker.setWorkerId('gearmanode-' + prefix)

const repertoire = {
  echo: (job) => job.workComplete(job.payload),
  size: (job) => job.workComplete(String(job.payload.length)),
  unique: (job) => job.workComplete(job.unique),
  empty: (job) => job.workComplete(),
  chatty: (job) => {
    job.sendWorkData(Buffer.concat([Buffer.from('one\0'), job.payload]))
    job.reportWarning('careful\0' + job.payload)
    job.reportStatus(1, 2)
    job.sendWorkData('two')
    job.workComplete('done')
  },
  fail: (job) => job.reportError(),
  raise: (job) => job.reportException('reason\0' + job.payload),
  hold: (job) => {
    job.reportStatus(3, 7)
    const look = setInterval(() => {
      if (fs.existsSync(job.payload)) {
        clearInterval(look)
        job.workComplete('released')
      }
    }, 5)
  }
}
for (const name of Object.keys(repertoire)) worker.addFunction(prefix + name, repertoire[name])
