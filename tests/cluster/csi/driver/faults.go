package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faults are files in a folder, looked at anew in each call:
//
//	fail-METHOD       "N [CODE]": the next N calls of this CSI method fail with this
//	                  gRPC code (such as UNAVAILABLE), or INTERNAL. The driver counts
//	                  down in the file and removes it at the end.
//	snapshot-slow     "DURATION": a snapshot that is taken now is ready only after it
//	snapshot-unready  anything: a snapshot that is taken now is not ready while it exists
//	snapshot-size     "BYTES": what is said to be the size of a snapshot that is taken
//	                  now; 0 says that it is unknown
type faults struct {
	dir string // none when empty
	mu  sync.Mutex
}

// read returns a fault's value, if it is on.
func (f *faults) read(name string) (value string, on bool, err error) {
	if f.dir == "" {
		return "", false, nil
	}
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return strings.TrimSpace(string(data)), err == nil, err
}

// parsed reads a fault whose value has a form. A switch that means nothing must
// not go unnoticed, so it is an error.
func parsed[T any](f *faults, name string, otherwise T, parse func(string) (T, error)) (T, error) {
	value, on, err := f.read(name)
	if err != nil || !on {
		return otherwise, err
	}
	result, err := parse(value)
	if err != nil {
		return otherwise, fmt.Errorf("fault %s: %w", name, err)
	}
	return result, nil
}

// apply gives a new snapshot the faults that are on.
func (f *faults) apply(s *snapshot) error {
	delay, err1 := parsed(f, "snapshot-slow", 0, time.ParseDuration)
	size, err2 := parsed(f, "snapshot-size", s.Size, func(value string) (int64, error) { return strconv.ParseInt(value, 10, 64) })
	_, held, err3 := f.read("snapshot-unready")
	s.Ready, s.Size, s.Held = s.Taken.Add(delay), size, held
	return errors.Join(err1, err2, err3)
}

// ready says whether a snapshot can be used by now.
func (f *faults) ready(s *snapshot) (bool, error) {
	_, on, err := f.read("snapshot-unready")
	return !time.Now().Before(s.Ready) && !(s.Held && on), err
}

// intercept fails a call that is to fail, before it does anything.
func (f *faults) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := f.fail(path.Base(info.FullMethod)); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (f *faults) fail(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := "fail-" + method
	var word string
	code := codes.Internal
	left, err := parsed(f, name, 0, func(value string) (count int, err error) {
		value, word, _ = strings.Cut(value, " ")
		if word != "" {
			err = code.UnmarshalJSON([]byte(strconv.Quote(word)))
		}
		if err == nil {
			count, err = strconv.Atoi(value)
		}
		return count, err
	})
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if left <= 0 {
		return nil
	}
	left--
	file := filepath.Join(f.dir, name)
	if left == 0 {
		err = os.Remove(file)
	} else {
		err = replace(file, fmt.Appendf(nil, "%d %s\n", left, word))
	}
	if err != nil {
		log.Printf("count down %s: %v", file, err)
	}
	return status.Errorf(code, "fault %s, %d more", name, left)
}
