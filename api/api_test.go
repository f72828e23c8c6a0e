package api

import (
	"testing"

	"github.com/sirupsen/logrus"
)

func TestTheDescriptionCanBeMade(t *testing.T) {
	New(nil, logrus.NewEntry(logrus.New()))
}
