import asyncio
import psycopg
from iidq.settings import load_settings
from iidq.queue.loop import open_work_loop
async def test_x(database_url):
    with psycopg.connect(database_url, autocommit=True) as c:
        c.execute("""INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress") SELECT 'verify', '0x'||repeat('a',64), 'ipfs://x', '0x'||repeat('b',40) from generate_series(1,100)""")
        async def h(job, progress):
            progress(10); await asyncio.sleep(0.01); return {"status": "OK"}
        s=load_settings(database_url=database_url)
        async with open_work_loop(s, h, "w1") as loop:
            t=asyncio.create_task(loop.run())
            while c.execute("""select count(*) from "VerificationJob" where status='completed'""").fetchone()[0] < 100:
                await asyncio.sleep(0.05)
            loop.stop(); print(await t)
