package store

import (
	"context"
	"encoding/json"
	"time"
)

// Replica is a controller that serves agents together with others on the same database.
type Replica struct {
	ID      string
	Address string // HOST:PORT under which the others reach it
}

// Session is an agent's connection to a replica.
type Session struct {
	ID            string
	Replica       Replica
	Tenant, Agent string
	Instance      string
	Version       string
	Remote        string
	Targets       []string
	Since         time.Time
	Beat          time.Time // when its replica was last heard of; set by Sessions
	Admitted      bool      // it carries requests
}

// Beat says that a replica lives; false when it was not known until now, or was given up: then its sessions are to be saved anew. Replicas that were not heard
// of for longer than forget are dropped, with their sessions.
func (s *Store) Beat(ctx context.Context, r Replica, forget time.Duration) (known bool, err error) {
	err = s.write(ctx, "replica.beat", func(tx *tx) error {
		updated, err := tx.exec(ctx, `UPDATE replicas SET address = ?, beat_at = ? WHERE id = ?`, r.Address, micros(tx.now()), r.ID)
		if err != nil {
			return err
		}
		rows, err := updated.RowsAffected()
		if known = rows > 0; err == nil && !known {
			_, err = tx.exec(ctx, `INSERT INTO replicas (id, address, beat_at) VALUES (?, ?, ?)`, r.ID, r.Address, micros(tx.now()))
		}
		if err != nil {
			return err
		}
		return tx.dropReplicas(ctx, `DELETE FROM replicas WHERE beat_at < ?`, micros(tx.now().Add(-forget)))
	})
	return known, err
}

// DropReplica drops a replica that stops, with its sessions.
func (s *Store) DropReplica(ctx context.Context, replica string) error {
	return s.write(ctx, "replica.leave", func(tx *tx) error {
		return tx.dropReplicas(ctx, `DELETE FROM replicas WHERE id = ?`, replica)
	})
}

// dropReplicas tells the others when the statement dropped any.
func (tx *tx) dropReplicas(ctx context.Context, statement string, of any) error {
	dropped, err := tx.exec(ctx, statement, of)
	if err != nil {
		return err
	}
	rows, err := dropped.RowsAffected()
	tx.agentsMoved = tx.agentsMoved || rows > 0
	return err
}

// SaveSessions makes sessions all that agents, as (tenant, name), have at a replica, which must be known by Beat. Every other replica is told.
func (s *Store) SaveSessions(ctx context.Context, replica string, agents [][2]string, sessions []Session) error {
	return s.write(ctx, "sessions.save", func(tx *tx) error {
		for _, a := range agents {
			if _, err := tx.exec(ctx, `DELETE FROM agent_sessions WHERE replica = ? AND tenant_id = ? AND agent = ?`, replica, a[0], a[1]); err != nil {
				return err
			}
		}
		for _, n := range sessions {
			targets, err := json.Marshal(n.Targets)
			if err != nil {
				return err
			}
			admitted := 0
			if n.Admitted {
				admitted = 1
			}
			if _, err := tx.exec(ctx, `INSERT INTO agent_sessions (id, replica, tenant_id, agent, instance, version, remote, targets, since, admitted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				n.ID, replica, n.Tenant, n.Agent, n.Instance, n.Version, n.Remote, string(targets), micros(n.Since), admitted); err != nil {
				return err
			}
		}
		tx.agentsMoved = true
		return nil
	})
}

// Sessions lists the sessions at all replicas that were heard of within alive, the oldest first: of one agent, of a tenant (agent ""), or all (tenant "").
func (s *Store) Sessions(ctx context.Context, tenant, agent string, alive time.Duration) (sessions []Session, err error) {
	err = s.read(ctx, func(tx *tx) error {
		sessions = nil
		return tx.each(ctx, `SELECT s.id, s.replica, r.address, r.beat_at, s.tenant_id, s.agent, s.instance, s.version, s.remote, s.targets, s.since, s.admitted
			FROM agent_sessions s JOIN replicas r ON r.id = s.replica
			WHERE r.beat_at >= ? AND (? = '' OR s.tenant_id = ?) AND (? = '' OR s.agent = ?) ORDER BY s.since, s.id`, func(scan func(...any) error) error {
			var n Session
			var targets string
			var beat, since int64
			var admitted int
			if err := scan(&n.ID, &n.Replica.ID, &n.Replica.Address, &beat, &n.Tenant, &n.Agent, &n.Instance, &n.Version, &n.Remote, &targets, &since, &admitted); err != nil {
				return err
			}
			n.Beat, n.Since, n.Admitted = fromMicros(beat), fromMicros(since), admitted != 0
			sessions = append(sessions, n)
			return json.Unmarshal([]byte(targets), &sessions[len(sessions)-1].Targets)
		}, micros(tx.now().Add(-alive)), tenant, tenant, agent, agent)
	})
	return sessions, err
}

// Replicas lists the replicas that were heard of within alive.
func (s *Store) Replicas(ctx context.Context, alive time.Duration) (all []Replica, err error) {
	err = s.read(ctx, func(tx *tx) error {
		all = nil
		return tx.each(ctx, `SELECT id, address FROM replicas WHERE beat_at >= ? ORDER BY id`, func(scan func(...any) error) error {
			var r Replica
			err := scan(&r.ID, &r.Address)
			all = append(all, r)
			return err
		}, micros(tx.now().Add(-alive)))
	})
	return all, err
}

// Oldest is, for each agent as (tenant, name), the replica that has the oldest of its admitted sessions, among replicas that were heard of within alive.
func (s *Store) Oldest(ctx context.Context, alive time.Duration) (replicas map[[2]string]string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		replicas = map[[2]string]string{}
		return tx.each(ctx, `SELECT s.tenant_id, s.agent, s.replica FROM agent_sessions s JOIN replicas r ON r.id = s.replica
			WHERE r.beat_at >= ? AND s.admitted <> 0 ORDER BY s.since DESC, s.id DESC`, func(scan func(...any) error) error {
			var agent [2]string
			var replica string
			err := scan(&agent[0], &agent[1], &replica)
			replicas[agent] = replica
			return err
		}, micros(tx.now().Add(-alive)))
	})
	return replicas, err
}

// Superseded lists the sessions at a replica whose instance has a younger one at another that was heard of within alive.
func (s *Store) Superseded(ctx context.Context, replica string, alive time.Duration) (sessions []string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		sessions = nil
		return tx.each(ctx, `SELECT DISTINCT o.id FROM agent_sessions o
			JOIN agent_sessions y ON y.tenant_id = o.tenant_id AND y.agent = o.agent AND y.instance = o.instance AND y.replica <> o.replica AND y.since > o.since
			JOIN replicas r ON r.id = y.replica WHERE o.replica = ? AND r.beat_at >= ? ORDER BY o.id`, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			sessions = append(sessions, id)
			return err
		}, replica, micros(tx.now().Add(-alive)))
	})
	return sessions, err
}

// LanesMoved lists the lanes of which history tells since an event, and the newest event by now. After a negative one nothing is listed.
func (s *Store) LanesMoved(ctx context.Context, after int64) (lanes []int64, newest int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		lanes = nil
		if err := tx.queryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM events`).Scan(&newest); err != nil || after < 0 {
			return err
		}
		lanes, err = tx.ids(ctx, `SELECT DISTINCT l.id FROM events e JOIN lanes l ON l.tenant_id = e.tenant_id AND l.application = e.application AND l.target = e.target
			WHERE e.id > ? AND e.id <= ? ORDER BY l.id`, after, newest)
		return err
	})
	return lanes, newest, err
}
