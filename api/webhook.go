package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// maxDelivery is the largest body of a webhook that GitHub sends.
const maxDelivery = 25 << 20

// deliveryLasts is how long a delivery may take to arrive.
const deliveryLasts = 30 * time.Second

// webhook takes a delivery in and answers; what it means is found out later.
func (s *server) webhook(deliver func(r *http.Request, body []byte) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// Whoever sends slowly is nobody who may hold a connection: what is read is not signed yet.
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryLasts)); err != nil {
			s.log.WithError(err).Error("a delivery can take no deadline")
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			refuse(w, http.StatusRequestEntityTooLarge, "the delivery is larger than 25 MiB")
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, "the delivery broke off")
			return
		}
		err = deliver(r, body)
		var problem *Problem
		switch {
		case errors.As(err, &problem):
			refuse(w, problem.Status, problem.Text)
		case err != nil:
			s.log.WithError(err).Error("a delivery could not be stored")
			refuse(w, http.StatusInternalServerError, "the delivery could not be stored; send it again")
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": text}) // the client may be gone
}
