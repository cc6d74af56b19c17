// Runs jobs with the gearmanode package and prints what became of them. Expectations live in the tests.
//
// Usage: node gearmanode_client.js PORT < request
//
// The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
// "data" in base64, "repeat": how often}]}. A line of output is a JSON list: the job's index, the event, its
// values; data is in base64.
'use strict'

const fs = require('fs')
const gearmanode = require('gearmanode')

const port = parseInt(process.argv[2])
const request = JSON.parse(fs.readFileSync(0))
const client = gearmanode.client({ host: '127.0.0.1', port })
client.on('error', (error) => { throw error })

const report = (index, event, ...values) => fs.writeSync(1, JSON.stringify([index, event, ...values]) + '\n')
const base64 = (data) => Buffer.from(data).toString('base64')
let open = request.jobs.length

function end () {
  open -= 1
  if (open === 0) client.close()
}

function submit (wanted, index) {
  const data = Buffer.concat(Array(wanted.repeat).fill(Buffer.from(wanted.data, 'base64')))
  const options = { priority: wanted.priority.toUpperCase(), background: wanted.background }
  if (wanted.unique !== null) options.unique = wanted.unique
  const job = client.submitJob(wanted.function, data, options)
  job.on('created', () => {
    report(index, 'created', job.handle)
    if (wanted.background) end()
  })
  job.on('workData', (part) => report(index, 'data', base64(part)))
  job.on('warning', (part) => report(index, 'warning', base64(part)))
  job.on('status', (status) =>
    report(index, 'status', parseInt(status.percent_done_num), parseInt(status.percent_done_den)))
  job.on('complete', () => { report(index, 'complete', base64(job.response)); end() })
  job.on('failed', () => { report(index, 'fail'); end() })
  job.on('exception', (data) => { report(index, 'exception', base64(data)); end() })
}

if (request.exceptions) {
  client.jobServers[0].once('option', () => request.jobs.forEach(submit))
  client.jobServers[0].setOption('exceptions')
} else {
  request.jobs.forEach(submit)
}
