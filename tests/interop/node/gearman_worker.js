// The repertoire of jobs (see foreign.py) as a worker on the gearman package. Expectations live in the tests.
//
// Usage: node gearman_worker.js PORT PREFIX
'use strict'

const fs = require('fs')
const gearman = require('gearman')

const [port, prefix] = process.argv.slice(2)
const worker = gearman('127.0.0.1', parseInt(port))
worker.on('error', (error) => { throw error })
worker.on('ERROR', (code, text) => { throw new Error(`${code}: ${text}`) })

const joined = (text, data) => Buffer.concat([Buffer.from(text), data])
const complete = (job, data) => {
  worker.sendWorkComplete(job.handle, data)
  worker.preSleep()
}
const repertoire = {
  echo: (job) => complete(job, job.payload),
  size: (job) => complete(job, String(job.payload.length)),
  unique: (job) => complete(job, job.unique_id),
  empty: (job) => complete(job, ''),
  chatty: (job) => {
    worker.sendWorkData(job.handle, joined('one\0', job.payload))
    worker.sendWorkWarning(job.handle, joined('careful\0', job.payload))
    worker.sendWorkStatus(job.handle, '1', '2')
    worker.sendWorkData(job.handle, 'two')
    complete(job, 'done')
  },
  fail: (job) => {
    worker.sendWorkFail(job.handle)
    worker.preSleep()
  },
  raise: (job) => {
    worker.sendWorkException(job.handle, joined('reason\0', job.payload))
    worker.preSleep()
  },
  hold: (job) => {
    worker.sendWorkStatus(job.handle, '3', '7')
    const look = setInterval(() => {
      if (fs.existsSync(job.payload)) {
        clearInterval(look)
        complete(job, 'released')
      }
    }, 5)
  }
}

worker.on('NOOP', () => worker.grabUniqueJob())
worker.on('NO_JOB', () => worker.preSleep())
worker.on('JOB_ASSIGN_UNIQ', (job) => repertoire[job.func_name.substring(prefix.length)](job))
worker.connect(() => {
  worker.setWorkerId('gearman-' + prefix)
  for (const name of Object.keys(repertoire)) worker.addFunction(prefix + name)
  worker.preSleep()
})
