package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// unseenFiles is what the settings are called that name files which are not compared yet, and the accounts that they wait for.
const unseenFiles = "unseen "

// observing is the setting that holds everything back after the database was lost.
const observing = "observing"

// Observe begins to find out what runs, for a database that was lost and is empty now: until Resume nothing is done but reading, by any controller of it. One
// that begun already goes on. A database that knows of applications is an error.
func (s *Store) Observe(ctx context.Context) error {
	return s.write(ctx, "observe", func(tx *tx) error {
		var begun, applications int
		if err := tx.queryRow(ctx, `SELECT (SELECT COUNT(*) FROM settings WHERE name = ?), (SELECT COUNT(*) FROM applications)`, observing).Scan(&begun, &applications); err != nil {
			return err
		}
		switch {
		case begun > 0:
			return nil
		case applications > 0:
			return fmt.Errorf("the database knows of %d applications: --rebuild is for an empty one; start without it, or name another database", applications)
		}
		if _, err := tx.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?)`, observing, fmt.Sprint(micros(tx.now()))); err != nil {
			return err
		}
		return tx.notify(ctx, turnsChannel)
	})
}

// Observing reports whether everything is held back.
func (s *Store) Observing(ctx context.Context) (is bool, err error) {
	err = s.read(ctx, func(tx *tx) error {
		is, err = tx.observing(ctx)
		return err
	})
	return is, err
}

func (tx *tx) observing(ctx context.Context) (bool, error) {
	var count int
	err := tx.queryRow(ctx, `SELECT COUNT(*) FROM settings WHERE name = ?`, observing).Scan(&count)
	return count > 0, err
}

// mayStart refuses what would touch clusters while everything is held back. It is asked in the transaction that starts a deployment, so a controller that does
// not know yet does no harm.
func (tx *tx) mayStart(ctx context.Context, start rollout.Start) error {
	if start.Observe || len(start.Targets) == 0 {
		return nil
	}
	on, err := tx.observing(ctx)
	if err == nil && on {
		err = rollout.Refuse(rollout.Conflicts, "the controllers of this database observe since it was lost, and touch nothing; have them go on with: towpath-controller resume")
	}
	return err
}

// Resume ends observing: what was found to be as it is asked for is held to that from now on, and people may release the rest. The controllers of this
// database see it within seconds.
func (s *Store) Resume(ctx context.Context, by string) error {
	return s.write(ctx, "resume", func(tx *tx) error {
		if err := tx.one(ctx, errors.New("nothing is held back: the controller does not observe"), `DELETE FROM settings WHERE name = ?`, observing); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM settings WHERE name LIKE ?`, unseenFiles+"%"); err != nil {
			return err
		}
		if err := tx.notify(ctx, turnsChannel); err != nil {
			return err
		}
		if err := tx.event(ctx, rollout.Event{At: tx.now(), Tenant: "main", Who: by, Kind: "controller.resumed", What: "what was found after the database was lost is acted upon from now on"}); err != nil {
			return err
		}
		return tx.wakeLanes(ctx, `SELECT id FROM lanes WHERE current_target IS NOT NULL`)
	})
}

// Unseen records that a file is not compared yet, since these accounts cannot be asked; none: it is no longer so.
func (s *Store) Unseen(ctx context.Context, path string, accounts []string) error {
	return s.write(ctx, "unseen", func(tx *tx) error {
		if len(accounts) == 0 {
			_, err := tx.exec(ctx, `DELETE FROM settings WHERE name = ?`, unseenFiles+path)
			return err
		}
		_, err := tx.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, unseenFiles+path, strings.Join(accounts, ", "))
		return err
	})
}

// UnseenFiles lists the files that are not compared yet, by path, with the accounts that each waits for.
func (s *Store) UnseenFiles(ctx context.Context) (paths, accounts []string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		paths, accounts = nil, nil
		return tx.each(ctx, `SELECT name, value FROM settings WHERE name LIKE ? ORDER BY name`, func(scan func(...any) error) error {
			var name, value string
			err := scan(&name, &value)
			paths, accounts = append(paths, strings.TrimPrefix(name, unseenFiles)), append(accounts, value)
			return err
		}, unseenFiles+"%")
	})
	return paths, accounts, err
}

// Finding is what was found of one target after the database was lost.
type Finding struct {
	Tenant, Application, Target, Account string
	Compared                             bool
	Differs                              []string // sentences; none: it runs as it is asked for
	Waits                                string   // what it waits for, before it is compared
}

// Findings lists what was found of each target, by application and target.
func (s *Store) Findings(ctx context.Context) (all []Finding, err error) {
	err = s.read(ctx, func(tx *tx) error {
		all = nil
		rows, err := tx.query(ctx, `SELECT t.data FROM targets t JOIN deployments d ON d.id = t.deployment_id JOIN lanes l ON l.id = t.lane_id
			WHERE d.trigger_kind = 'rebuild' AND l.wanted_target = t.id ORDER BY d.tenant_id, d.application, t.ord`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var text sql.RawBytes
			if err := rows.Scan(&text); err != nil {
				return err
			}
			var t rollout.Target
			if err := json.Unmarshal(text, &t); err != nil {
				return err
			}
			f := Finding{Tenant: t.Tenant, Application: t.Application, Target: t.Name, Account: t.Account, Compared: t.Phase != rollout.Observing && t.Phase != rollout.Comparing}
			if f.Compared {
				f.Differs = t.Differs
			} else if len(t.Waits) > 0 {
				f.Waits = t.Waits[0].Needs
			}
			all = append(all, f)
		}
		return rows.Err()
	})
	return all, err
}

// SealManifests keeps a set of manifests by its digest.
func (s *Store) SealManifests(ctx context.Context, digest string, objects []manifest.Object) error {
	return s.write(ctx, "seal", func(tx *tx) error { return tx.seal(ctx, map[string][]manifest.Object{digest: objects}) })
}
