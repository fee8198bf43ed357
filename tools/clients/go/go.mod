module raftcache

go 1.19
