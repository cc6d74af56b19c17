<?php
// Runs jobs of the function "php" as long as it lives, and adds a line with the data of each to a file.
//
// Usage: php worker.php PORT FILE

[, $port, $file] = $argv;

$worker = new GearmanWorker();
$worker->addServer('127.0.0.1', (int) $port);
$worker->addFunction('php', function (GearmanJob $job) use ($file): string {
    file_put_contents($file, $job->workload() . "\n", FILE_APPEND);
    return '';
});
while (true) {
    // It fails when the server is gone, and connects again.
    if (!@$worker->work()) {
        usleep(20000);
    }
}
