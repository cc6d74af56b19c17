#!/usr/bin/perl
# Runs jobs with Gearman::Client and prints what became of them. Expectations live in the tests.
#
# Usage: perl client.pl PORT tasks|do|status|server-status < request
#
# The request is JSON: {"exceptions": bool, "jobs": [{"function", "unique" or null, "priority", "background",
# "data" in base64, "repeat": how often}]}, for "status" {"handles": [...]}. A line of output is a JSON list:
# the job's index, the event, its values; data is in base64.
use strict;
use warnings;

use Gearman::Client;
use Gearman::Task;
use JSON::PP;
use MIME::Base64 qw(decode_base64 encode_base64);

$| = 1;

my ($port, $mode) = @ARGV;
my $request = decode_json(do { local $/ = undef; <STDIN> });
my $client  = Gearman::Client->new(
    job_servers => "127.0.0.1:$port",
    exceptions  => $request->{exceptions} ? 1 : 0,
);

sub report {
    print encode_json([@_]), "\n";
    return;
}

sub task {
    my ($index, $job) = @_;
    my $data = decode_base64($job->{data}) x $job->{repeat};
    return Gearman::Task->new(
        $job->{function},
        \$data,
        {
            uniq         => $job->{unique},
            priority     => $job->{priority},
            on_data      => sub { report($index, "data",      encode_base64(${ $_[0] }, "")) },
            on_warning   => sub { report($index, "warning",   encode_base64(${ $_[0] }, "")) },
            on_status    => sub { report($index, "status",    $_[0] + 0, $_[1] + 0) },
            on_exception => sub { report($index, "exception", encode_base64($_[0], "")) },
            on_fail      => sub { report($index, "fail") },
            on_complete  => sub { report($index, "complete",  encode_base64(${ $_[0] }, "")) },
        }
    );
}

if ($mode eq "tasks") {
    my $set = $client->new_task_set;
    for my $index (0 .. $#{ $request->{jobs} }) {
        my $job = $request->{jobs}[$index];
        my $task = task($index, $job);
        my $handle = $job->{background} ? $client->dispatch_background($task) : $set->add_task($task);
        report($index, "created", $handle);
    }
    $set->wait;
}
elsif ($mode eq "do") {
    for my $index (0 .. $#{ $request->{jobs} }) {
        $client->do_task(task($index, $request->{jobs}[$index]));
    }
}
elsif ($mode eq "status") {
    for my $index (0 .. $#{ $request->{handles} }) {
        my $status = $client->get_status($request->{handles}[$index]);
        my ($done, $all) = @{ $status->progress || [ 0, 0 ] };
        report(
            $index, "status",
            $status->known   ? JSON::PP::true : JSON::PP::false,
            $status->running ? JSON::PP::true : JSON::PP::false,
            $done + 0, $all + 0
        );
    }
}
elsif ($mode eq "server-status") {
    my $status = $client->get_job_server_status->{"127.0.0.1:$port"};
    for my $function (sort keys %{$status}) {
        my ($queued, $running, $capable) = @{ $status->{$function} }{qw(queued running capable)};
        report(0, "function", $function, $queued + 0, $running + 0, $capable + 0);
    }
}
else {
    die "unknown mode $mode";
}
