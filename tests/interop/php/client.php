<?php
// Runs jobs with PHP's gearman extension and prints what became of them. Expectations live in the tests.
//
// Usage: php client.php PORT tasks|do|status|status-by-unique|ping < request
//
// The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
// "data" in base64, "repeat": how often}]}, for "status" {"handles": [...]}, for "status-by-unique"
// {"uniques": [...]}, for "ping" {"data" in base64}. A line of output is a JSON list: the job's index, the
// event, its values; data is in base64.

[, $port, $mode] = $argv;
$request = json_decode(stream_get_contents(STDIN), true, flags: JSON_THROW_ON_ERROR);

function report(int $index, string $event, string|int|bool ...$values): void
{
    echo json_encode([$index, $event, ...$values], JSON_THROW_ON_ERROR), "\n";
}

function workload(array $job): string
{
    return str_repeat(base64_decode($job['data']), $job['repeat']);
}

function method(string $stem, array $job): string
{
    return $stem . ($job['priority'] === 'normal' ? '' : ucfirst($job['priority']));
}

function run_tasks(GearmanClient $client, array $jobs): void
{
    $client->setCreatedCallback(fn ($task, $index) => report($index, 'created', $task->jobHandle()));
    $client->setDataCallback(fn ($task, $index) => report($index, 'data', base64_encode($task->data())));
    $client->setWarningCallback(fn ($task, $index) => report($index, 'warning', base64_encode($task->data())));
    $client->setStatusCallback(
        fn ($task, $index) => report($index, 'status', $task->taskNumerator(), $task->taskDenominator())
    );
    $client->setExceptionCallback(
        fn ($task, $index) => report($index, 'exception', base64_encode($task->data()))
    );
    $client->setFailCallback(fn ($task, $index) => report($index, 'fail'));
    $client->setCompleteCallback(fn ($task, $index) => report($index, 'complete', base64_encode($task->data())));
    $tasks = [];
    foreach ($jobs as $index => $job) {
        $add = method('addTask', $job) . ($job['background'] ? 'Background' : '');
        $tasks[] = $client->$add($job['function'], workload($job), $index, $job['unique']);
    }
    if (!$client->runTasks()) {
        throw new Exception('runTasks: ' . $client->error());
    }
}

// One job after the other by doNormal() and its kin, which return once for each packet of a job.
function do_each(GearmanClient $client, array $jobs): void
{
    foreach ($jobs as $index => $job) {
        $data = workload($job);
        if ($job['background']) {
            $do = ['high' => 'doHighBackground', 'normal' => 'doBackground', 'low' => 'doLowBackground'];
            $handle = $client->{$do[$job['priority']]}($job['function'], $data, $job['unique']);
            report($index, 'created', $handle);
            continue;
        }
        $do = ['high' => 'doHigh', 'normal' => 'doNormal', 'low' => 'doLow'][$job['priority']];
        do {
            $result = $client->$do($job['function'], $data, $job['unique']);
            $again = false;
            switch ($client->returnCode()) {
                case GEARMAN_WORK_DATA:
                    report($index, 'data', base64_encode($result));
                    $again = true;
                    break;
                case GEARMAN_WORK_WARNING:
                    report($index, 'warning', base64_encode($result));
                    $again = true;
                    break;
                case GEARMAN_WORK_STATUS:
                    report($index, 'status', ...$client->doStatus());
                    $again = true;
                    break;
                case GEARMAN_WORK_EXCEPTION:
                    report($index, 'exception', base64_encode((string) $result));
                    break;
                case GEARMAN_WORK_FAIL:
                    report($index, 'fail');
                    break;
                case GEARMAN_SUCCESS:
                    report($index, 'complete', base64_encode((string) $result));
                    break;
                default:
                    throw new Exception("$do: " . $client->error());
            }
        } while ($again);
    }
}

$client = new GearmanClient();
$client->addServer('127.0.0.1', (int) $port, $request['exceptions'] ?? false);
switch ($mode) {
    case 'tasks':
        run_tasks($client, $request['jobs']);
        break;
    case 'do':
        do_each($client, $request['jobs']);
        break;
    case 'status':
        foreach ($request['handles'] as $index => $handle) {
            report($index, 'status', ...$client->jobStatus($handle));
        }
        break;
    case 'status-by-unique':
        foreach ($request['uniques'] as $index => $unique) {
            report($index, 'status', ...$client->jobStatusByUniqueKey($unique));
        }
        break;
    case 'ping':
        report(0, $client->ping(base64_decode($request['data'])) ? 'pong' : $client->error());
        break;
}
