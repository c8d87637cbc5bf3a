package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// supervisor starts the components, reaps them and, on a node, whatever the
// shims leave behind; it ends, and with it everything, when told to or when any
// component ends.
type supervisor struct {
	*cluster
	start    time.Time
	messages *os.File   // to up, while it waits
	dead     chan error // a component ended

	mu       sync.Mutex
	exit     map[int]func(syscall.WaitStatus) // by pid
	children map[string]int                   // pids of components
}

// supervise is the other half of up: file 3 says when to go, file 4 takes what
// there is to say.
func supervise(dir string) error {
	// Children are told to die with the thread that started them, so one thread,
	// which lasts as long as the program, starts them all.
	runtime.LockOSThread()
	goFile, messages := os.NewFile(3, "go"), os.NewFile(4, "messages")
	if goFile == nil || messages == nil {
		return errors.New("this command is for cluster up alone")
	}
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	if word, err := io.ReadAll(goFile); err != nil || string(word) != "go\n" {
		return errors.New("cluster up ended before the cluster's network was there")
	}
	goFile.Close()
	c, err := read(dir)
	if err != nil {
		return err
	}
	s := &supervisor{
		cluster: c, start: time.Now(), messages: messages,
		dead: make(chan error, 1), exit: map[int]func(syscall.WaitStatus){}, children: map[string]int{},
	}
	if err := s.run(); err != nil {
		os.WriteFile(c.path("failure"), []byte(err.Error()+"\n"), 0o644)
		return err
	}
	return nil
}

func (s *supervisor) run() error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if err := s.configure(); err != nil {
		return err
	}
	go s.reap()
	defer s.endEtcd()
	starts := make(chan func()) // to run on this thread
	booted := make(chan error, 1)
	go func() { booted <- s.boot(starts) }()
	for {
		select {
		case start := <-starts:
			start()
		case err := <-booted:
			if err != nil {
				return err
			}
			s.say("ready")
			s.messages.Close()
		case err := <-s.dead:
			return err
		case <-stop:
			return nil
		}
	}
}

func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil {
			time.Sleep(5 * time.Millisecond) // no child just now
			continue
		}
		s.mu.Lock()
		exited := s.exit[pid]
		delete(s.exit, pid)
		s.mu.Unlock()
		if exited != nil {
			exited(status)
		}
	}
}

// spawn starts a program that writes to the log of its name.
func (s *supervisor) spawn(name string, exited func(syscall.WaitStatus), path string, args ...string) (int, error) {
	log, err := os.OpenFile(s.logFile(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.Level == "api" {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	s.exit[cmd.Process.Pid] = exited
	return cmd.Process.Pid, nil
}

// daemon starts what must not end.
func (s *supervisor) daemon(name, path string, args ...string) error {
	pid, err := s.spawn(name, func(status syscall.WaitStatus) {
		s.mu.Lock()
		delete(s.children, name)
		s.mu.Unlock()
		select {
		case s.dead <- fmt.Errorf("%s ended (%s)%s", name, describe(status), tail(s.logFile(name))):
		default:
		}
	}, path, args...)
	s.mu.Lock()
	s.children[name] = pid
	s.mu.Unlock()
	return err
}

// finish runs what must end well.
func (s *supervisor) finish(name, path string, args ...string) error {
	done := make(chan syscall.WaitStatus, 1)
	if _, err := s.spawn(name, func(status syscall.WaitStatus) { done <- status }, path, args...); err != nil {
		return err
	}
	if status := <-done; status != 0 {
		return fmt.Errorf("%s failed (%s)%s", name, describe(status), tail(s.logFile(name)))
	}
	return nil
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// endEtcd lets etcd put its data away: the folder may be used again. The rest
// dies with the supervisor.
func (s *supervisor) endEtcd() {
	gone := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.children["etcd"] == 0
	}
	s.mu.Lock()
	for name, pid := range s.children {
		if name == "kube-apiserver" {
			syscall.Kill(pid, syscall.SIGKILL) // or etcd would wait for it
		} else if name == "etcd" {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	s.mu.Unlock()
	poll(10*time.Second, gone)
}

// stage reports progress, to the log and to a waiting up.
func (s *supervisor) stage(format string, args ...any) {
	s.say(fmt.Sprintf("%7.3fs %s", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...)))
}

func (s *supervisor) say(line string) {
	fmt.Println(line)
	fmt.Fprintln(s.messages, line) // fails when up was killed, and that is well
}
