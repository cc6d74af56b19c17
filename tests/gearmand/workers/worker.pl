#!/usr/bin/perl
# Runs jobs of the function "perl" as long as it lives, and adds a line with the data of each to a file.
#
# Usage: perl worker.pl PORT FILE
use strict;
use warnings;

use Gearman::Worker;
use IO::Handle;

my ($port, $file) = @ARGV;
open my $notes, ">>", $file or die "$file: $!";
$notes->autoflush(1);

my $worker = Gearman::Worker->new(job_servers => "127.0.0.1:$port");
$worker->register_function(
    perl => sub {
        print {$notes} $_[0]->arg, "\n";
        # gearmand closes the connection where this is empty.
        return "done";
    }
);
$worker->work while 1;
