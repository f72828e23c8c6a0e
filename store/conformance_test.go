package store_test

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/internal/testkit/postgres"
	"towpath/store"
	"towpath/store/storetest"
)

func TestConformanceOfSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Opened {
		return opened(t, "sqlite:"+filepath.Join(t.TempDir(), "towpath.db"), clock, true)
	})
}

func TestConformanceOfPostgreSQL(t *testing.T) {
	server := postgres.Start(t)
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Opened {
		return opened(t, server.Database(t), clock, false)
	})
}

func opened(t *testing.T, url string, clock func() time.Time, exclusive bool) storetest.Opened {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := store.Open(t.Context(), store.Config{URL: url, Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Clock: clock, Log: logrus.NewEntry(log)})
	if err != nil {
		t.Fatal(err)
	}
	woken, asked, stop := storetest.Jobs(t, url)
	t.Cleanup(func() {
		stop()
		s.Close()
	})
	return storetest.Opened{Store: s, Woken: woken, Asked: asked, Exclusive: exclusive}
}
