#!/usr/bin/perl
# The repertoire of jobs (see foreign.py) as a worker on Gearman::Worker. Expectations live in the tests.
#
# Usage: perl worker.pl PORT PREFIX
use strict;
use warnings;

use Gearman::Worker;

my ($port, $prefix) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => "127.0.0.1:$port", client_id => "perl-$prefix");

my %repertoire = (
    echo   => sub { $_[0]->arg },
    size   => sub { length $_[0]->arg },
    chatty => sub {
        my ($job) = @_;
        $worker->send_work_data($job, "one\0" . $job->arg);
        $worker->send_work_warning($job, "careful\0" . $job->arg);
        $job->set_status(1, 2);
        $worker->send_work_data($job, "two");
        return "done";
    },
    empty         => sub { "" },
    zero          => sub { 0 },
    "half-status" => sub {
        my ($job) = @_;
        $worker->send_work_status($job, 1, 2);
        return "done";
    },
    fail  => sub { return undef },
    raise => sub {
        my ($job) = @_;
        $worker->send_work_exception($job, "reason\0" . $job->arg);
    },
    dies => sub { die "reason: " . $_[0]->arg . "\n" },
    hold => sub {
        # Runs until the file that the workload names exists.
        my ($job) = @_;
        $job->set_status(3, 7);
        until (-e $job->arg) {
            select(undef, undef, undef, 0.005);
        }
        return "released";
    },
);
$worker->register_function($prefix . $_, $repertoire{$_}) for sort keys %repertoire;
$worker->work while 1;
