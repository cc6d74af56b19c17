<?php
// The repertoire of jobs (see foreign.py) as a worker on PHP's gearman extension. Expectations live in the tests.
//
// Usage: php worker.php PORT PREFIX

[, $port, $prefix] = $argv;

$worker = new GearmanWorker();
$worker->addServer('127.0.0.1', (int) $port);
$worker->setId("php-$prefix");

$repertoire = [
    'echo' => fn (GearmanJob $job) => $job->workload(),
    'size' => fn (GearmanJob $job) => (string) $job->workloadSize(),
    'unique' => fn (GearmanJob $job) => $job->unique(),
    'empty' => fn (GearmanJob $job) => '',
    'chatty' => function (GearmanJob $job) {
        $job->sendData("one\0" . $job->workload());
        $job->sendWarning("careful\0" . $job->workload());
        $job->sendStatus(1, 2);
        $job->sendData('two');
        return 'done';
    },
    'fail' => function (GearmanJob $job) {
        $job->sendFail();
    },
    'raise' => function (GearmanJob $job) {
        $job->sendException("reason\0" . $job->workload());
    },
    'hold' => function (GearmanJob $job) {
        // Runs until the file that the workload names exists.
        $job->sendStatus(3, 7);
        while (!file_exists($job->workload())) {
            usleep(5000);
            clearstatcache();
        }
        return 'released';
    },
    'busy' => function (GearmanJob $job) {
        // As hold, with a status every tenth of a second: how many it has sent.
        for ($sent = 0; !file_exists($job->workload()); ++$sent) {
            $job->sendStatus($sent, 0);
            usleep(100000);
            clearstatcache();
        }
        return 'released';
    },
];
foreach ($repertoire as $name => $function) {
    $worker->addFunction($prefix . $name, $function);
}
while ($worker->work() || $worker->returnCode() === GEARMAN_WORK_FAIL || $worker->returnCode() === GEARMAN_WORK_EXCEPTION) {
}
fwrite(STDERR, 'worker ended: ' . $worker->error() . "\n");
exit(1);
