// Runs jobs with the gearman package and prints what became of them. Expectations live in the tests.
//
// Usage: node gearman_client.js PORT < request
//
// The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
// "data" in base64, "repeat": how often}]}. A line of output is a JSON list: the job's index, the event, its
// values; data is in base64.
'use strict'

const fs = require('fs')
const gearman = require('gearman')

const request = JSON.parse(fs.readFileSync(0))
const client = gearman('127.0.0.1', parseInt(process.argv[2]))
client.on('error', (error) => { throw error })
client.on('ERROR', (code, text) => { throw new Error(`${code}: ${text}`) })

const report = (index, event, ...values) => fs.writeSync(1, JSON.stringify([index, event, ...values]) + '\n')
const base64 = (data) => Buffer.from(data).toString('base64')
const indexes = new Map()
let created = 0
let open = request.jobs.length

function end () {
  open -= 1
  if (open === 0) client.close()
}

// The index of the job that a packet is about; the handle of an unknown job is an error.
function indexOf (packet) {
  if (!indexes.has(packet.handle)) throw new Error(`unknown handle ${JSON.stringify(packet.handle)}`)
  return indexes.get(packet.handle)
}

client.on('JOB_CREATED', (handle) => {
  const index = created++
  indexes.set(handle, index)
  report(index, 'created', handle)
  if (request.jobs[index].background) end()
})
client.on('WORK_DATA', (job) => report(indexOf(job), 'data', base64(job.payload)))
client.on('WORK_WARNING', (job) => report(indexOf(job), 'warning', base64(job.warning)))
client.on('WORK_STATUS', (job) =>
  report(indexOf(job), 'status', parseInt(job.percent_num), parseInt(job.percent_den)))
client.on('WORK_COMPLETE', (job) => { report(indexOf(job), 'complete', base64(job.payload)); end() })
client.on('WORK_FAIL', (job) => { report(indexOf(job), 'fail'); end() })
client.on('WORK_EXCEPTION', (job) => { report(indexOf(job), 'exception', base64(job.exception)); end() })

client.connect(() => {
  if (request.exceptions) client.setOption('exceptions')
  for (const wanted of request.jobs) {
    const data = Buffer.concat(Array(wanted.repeat).fill(Buffer.from(wanted.data, 'base64')))
    const options = { priority: wanted.priority, background: wanted.background, unique_id: wanted.unique }
    client.submitJob(wanted.function, data, options)
  }
})
