"""A database with another encoding than UTF8 is refused before any change."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.database.migrate import migrate
from iidq.errors import SettingsFault
from iidq.settings import Settings


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_another_encoding_is_refused(encoding: str, empty_database_url: str) -> None:
    """``migrate`` refuses a database in another encoding and leaves no table; the doctor names the encoding."""
    name = f"odd_{encoding.lower()}"
    url = empty_database_url.replace(str(conninfo_to_dict(empty_database_url)["dbname"]), name)
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            with pytest.raises(SettingsFault, match=f"encoding is {encoding}; expected UTF8"):
                migrate(url)
            with psycopg.connect(url, client_encoding="utf8") as odd:
                assert odd.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
            found = await diagnose(Settings(_env_file=None, database_url=url, ipfs_gateways=("http://127.0.0.1:9",)))
            assert (found[0].check, found[0].level) == ("database", Level.BROKEN)
            assert encoding in found[0].came_back
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
